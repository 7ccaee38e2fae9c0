//! `gradus data get`

use std::path::{Path, PathBuf};
use std::time::Duration;

use gradus::config::DataConfig;
use gradus::train::prepare;
use serde_json::json;

use super::catalogue::{self, DataSet, Kind};
use super::download::{Downloader, Wanted};
use super::unpack::unpack;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(super) struct Get<'a> {
    pub(super) name: &'a str,
    pub(super) to: &'a Path,
    pub(super) catalogue: Option<&'a Path>,
    pub(super) mirror: Option<&'a str>,
    pub(super) timeout_s: f64,
    pub(super) keep_archives: bool,
    pub(super) json: bool,
}

pub(super) fn run(arguments: &Get<'_>) -> Outcome {
    let known = catalogue::read(arguments.catalogue)?;
    let set = known.get(arguments.name).ok_or_else(|| {
        let likeness = |name: &String| strsim::jaro_winkler(name, arguments.name);
        let near = known.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        Failure::new(format!(
            "`{}` is no data set that can be fetched; did you mean `{}`? Known: {}",
            arguments.name,
            near.map_or("", String::as_str),
            names.join(", ")
        ))
    })?;
    if let Some(what_to_do) = &set.agreement {
        return Err(Failure::new(format!(
            "{} cannot be downloaded by a program: {what_to_do}",
            set.title
        )));
    }
    let paths: Vec<PathBuf> = set.paths.iter().map(|path| arguments.to.join(path)).collect();
    let fresh = if paths.iter().all(|path| path.exists()) {
        output::note(&format!(
            "{} is there already: it is only looked at",
            paths[0].display()
        ));
        false
    } else {
        fetch(arguments, set)?;
        true
    };
    let dataset = prepare::read(&DataConfig {
        path: paths[0].clone(),
        with: paths[1..].to_vec(),
        ..DataConfig::default()
    })?;
    let (images, classes) = (dataset.items.len(), dataset.classes.len());
    if arguments.json {
        return output::json(&json!({
            "name": arguments.name, "paths": paths, "images": images, "classes": classes, "downloaded": fresh,
        }));
    }
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    output::text(&format!(
        "{}: {images} images of {classes} classes\nnext: gradus data inspect {} ; gradus train --data {}",
        set.title,
        shown.join(" "),
        shown.join(" ")
    ))
}

/// Downloads and unpacks into a folder of another name, which becomes the data set when all of it is there.
fn fetch(arguments: &Get<'_>, set: &DataSet) -> Outcome {
    let (to, files) = (arguments.to, &set.files);
    let disk = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()))
    };
    std::fs::create_dir_all(to).map_err(disk(to))?;
    let downloader = Downloader::new(Duration::from_secs_f64(arguments.timeout_s));
    for file in files {
        let addresses = match arguments.mirror {
            Some(mirror) => vec![format!("{}/{}", mirror.trim_end_matches('/'), file.name)],
            None => file.addresses.clone(),
        };
        downloader.get(&Wanted {
            addresses,
            size: file.size,
            md5: &file.md5,
            to: to.join(&file.name),
        })?;
    }
    let unpacked = tempfile::Builder::new()
        .prefix(&format!(".{}-", arguments.name))
        .tempdir_in(to)
        .map_err(disk(to))?;
    // Archives whose top folder is the data set go there as they are, others into the folder of the data set.
    let folder = &set.paths[0];
    let inner = unpacked.path().join(folder);
    let is_whole = files.len() == 1;
    let into = if is_whole { unpacked.path() } else { &inner };
    std::fs::create_dir_all(into).map_err(disk(into))?;
    for file in files {
        let archive = to.join(&file.name);
        match file.kind() {
            Kind::Plain => {
                std::fs::copy(&archive, into.join(&file.name)).map_err(disk(into))?;
            }
            kind => {
                output::note(&format!("unpacking {}", file.name));
                unpack(&archive, kind, into)?;
            }
        }
    }
    if !inner.is_dir() {
        return Err(Failure::new(format!(
            "{} does not hold the folder {folder} that was expected in it",
            files[0].name
        )));
    }
    let place = to.join(folder);
    std::fs::rename(&inner, &place).map_err(disk(&place))?;
    if !arguments.keep_archives {
        for file in files {
            let path = to.join(&file.name);
            std::fs::remove_file(&path).map_err(disk(&path))?;
        }
    }
    Ok(())
}
