//! Which data sets can be fetched by name: those of `catalogue.toml` and of the user's own file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::failure::Failure;

/// Data sets by name.
pub(super) type Catalogue = BTreeMap<String, DataSet>;

/// A data set that can be asked for by name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DataSet {
    /// What it is called in papers.
    pub(super) title: String,
    /// Files that anyone may download.
    #[serde(default)]
    pub(super) files: Vec<File>,
    /// Where its makers ask for an agreement first: what to do.
    pub(super) agreement: Option<String>,
    /// What to give to `--data`, below the folder of `--to`; the first is the folder that the files are unpacked into or bring along.
    #[serde(default)]
    pub(super) paths: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: String,
    /// Tried in order.
    pub(super) addresses: Vec<String>,
    /// In bytes.
    pub(super) size: Option<u64>,
    pub(super) md5: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    TarGz,
    Zip,
    /// Stays as it is.
    Plain,
}

impl File {
    pub(super) fn kind(&self) -> Kind {
        let name = self.name.to_ascii_lowercase();
        if name.ends_with(".tgz") || name.ends_with(".tar.gz") {
            Kind::TarGz
        } else if name.ends_with(".zip") {
            Kind::Zip
        } else {
            Kind::Plain
        }
    }
}

/// The data sets that gradus knows, and those of a file, which may replace them.
pub(super) fn read(file: Option<&Path>) -> Result<Catalogue, Failure> {
    let mut catalogue = parse(include_str!("catalogue.toml"), "catalogue.toml")?;
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
        catalogue.extend(parse(&text, &path.display().to_string())?);
    }
    Ok(catalogue)
}

fn parse(text: &str, origin: &str) -> Result<Catalogue, Failure> {
    let catalogue: Catalogue = toml::from_str(text)
        .map_err(|error| Failure::new(format!("{origin} is no catalogue of data sets: {error}")))?;
    for (name, set) in &catalogue {
        let problem = |what: String| Failure::new(format!("{origin}: {name}: {what}"));
        if set.agreement.is_none() && (set.files.is_empty() || set.paths.is_empty()) {
            return Err(problem("it needs files and paths, or an agreement".into()));
        }
        let plain = |text: &str| !text.is_empty() && !text.contains(['/', '\\', ':']) && !text.starts_with('.');
        if let Some(bad) = set
            .files
            .iter()
            .map(|file| &file.name)
            .chain(&set.paths)
            .find(|name| !plain(name))
        {
            return Err(problem(format!("\"{bad}\" is no plain name of a file or folder")));
        }
        for file in &set.files {
            if file.md5.len() != 32 || !file.md5.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(problem(format!(
                    "the MD5 of {} has to be 32 digits, 0-9 and a-f",
                    file.name
                )));
            }
            if file.addresses.is_empty() {
                return Err(problem(format!("{} has no address", file.name)));
            }
        }
    }
    Ok(catalogue)
}
