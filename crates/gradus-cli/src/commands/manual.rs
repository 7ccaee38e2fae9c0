//! `gradus manual`

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use gradus_core::files::write_atomically;
use serde_json::json;

use crate::arguments::{Arguments, Manual};
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &Manual) -> Outcome {
    let folder = &arguments.out;
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::new(format!("cannot make the folder {}: {error}", folder.display())))?;
    let mut command = Arguments::command();
    command.build();
    let mut pages = Vec::new();
    write_pages(&command, "gradus", folder, &mut pages)?;
    if arguments.json {
        return output::json(&json!({ "folder": folder, "pages": pages }));
    }
    output::text(&format!("{} pages written into {}", pages.len(), folder.display()))
}

/// The page of a command, then those of the commands below it.
fn write_pages(command: &clap::Command, name: &str, folder: &Path, pages: &mut Vec<PathBuf>) -> Outcome {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).render(&mut page)?;
    let path = folder.join(format!("{name}.1"));
    write_atomically(&path, |file| file.write_all(&page))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    pages.push(path);
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        write_pages(below, &format!("{name}-{}", below.get_name()), folder, pages)?;
    }
    Ok(())
}
