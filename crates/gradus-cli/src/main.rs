//! The command line of gradus: parse → resolved configuration → one library call → print.

mod arguments;
mod commands;
mod failure;
mod output;
mod page;
mod progress;
mod thumbnail;
mod version;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    gradus::kernels::keep_large_buffers();
    // Benchmarks choose the number of threads themselves.
    if !matches!(arguments.command, Command::Bench(_)) {
        // Threads that cannot be started now are asked for again, and missed, where they are needed.
        let _ = gradus::kernels::use_threads(0);
    }
    // A defect must not look like one to a user, nor pass as success.
    std::panic::set_hook(Box::new(|_| {}));
    let result = std::panic::catch_unwind(|| match arguments.command {
        Command::Quickstart(arguments) => commands::quickstart::run(&arguments),
        Command::Train(arguments) => commands::train::run(&arguments),
        Command::Compare(arguments) => commands::compare::run(&arguments),
        Command::Evaluate(arguments) => commands::evaluate::run(&arguments),
        Command::Cluster(arguments) => commands::cluster::run(&arguments),
        Command::FewShot(arguments) => commands::few_shot::run(&arguments),
        Command::Report(arguments) => commands::report::run(&arguments),
        Command::Embed(arguments) => commands::embed::run(&arguments),
        Command::Index(arguments) => commands::index::run(&arguments),
        Command::Search(arguments) => commands::search::run(&arguments),
        Command::Serve(arguments) => commands::serve::run(&arguments),
        Command::Calibrate(arguments) => commands::calibrate::run(&arguments),
        Command::Duplicates(arguments) => commands::duplicates::run(&arguments),
        Command::Loss(arguments) => commands::loss::run(&arguments),
        Command::Mine(arguments) => commands::mine::run(&arguments),
        Command::Data(arguments) => commands::data::run(&arguments),
        Command::List(arguments) => commands::list::run(&arguments),
        Command::Config(arguments) => commands::config::run(&arguments),
        Command::Doctor(arguments) => commands::doctor::run(&arguments),
        Command::Bench(arguments) => commands::bench::run(&arguments),
        Command::Completions(arguments) => commands::completions::run(&arguments),
        Command::Manual(arguments) => commands::manual::run(&arguments),
    });
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            output::error(&failure.to_string());
            ExitCode::from(2)
        }
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("unknown");
            output::error(&format!(
                "gradus met a defect of its own ({message}); what was written before is kept. Please report the command line and \
                 this message"
            ));
            ExitCode::from(2)
        }
    }
}
