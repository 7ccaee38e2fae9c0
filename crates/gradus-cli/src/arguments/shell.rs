//! What the system around the program asks for: completions, manual pages.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus completions bash > ~/.local/share/bash-completion/completions/gradus
  gradus completions zsh > \"${fpath[1]}/_gradus\"
  gradus completions fish > ~/.config/fish/completions/gradus.fish")]
pub(crate) struct Completions {
    /// Shell whose completions are printed
    pub(crate) shell: Shell,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus manual --out ~/.local/share/man/man1
  man gradus-train")]
pub(crate) struct Manual {
    /// Folder for the pages: gradus.1, gradus-train.1, ...
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
