//! `gradus completions`

use std::io::Write;

use clap::CommandFactory;

use crate::arguments::{Arguments, Completions};
use crate::failure::Outcome;

pub(crate) fn run(arguments: &Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "gradus", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(())
}
