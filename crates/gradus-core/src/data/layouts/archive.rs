//! Image members of `.tar`, `.tar.gz` and `.zip` archives, read into memory without unpacking to disk.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::scan::{is_hidden, is_image, malformed};
use crate::data::dataset::DataError;

/// Largest member that is read; an image of a benchmark takes a few KiB.
const MAX_MEMBER: u64 = 64 << 20;
/// Largest sum of all members.
const MAX_TOTAL: u64 = 4 << 30;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Tar,
    TarGz,
    Zip,
}

/// Whether a path is a file named like an archive that can be read.
pub(super) fn is_archive(path: &Path) -> bool {
    path.is_file() && kind(path).is_some()
}

fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        Some(Kind::TarGz)
    } else if name.ends_with(".tar") {
        Some(Kind::Tar)
    } else if name.ends_with(".zip") {
        Some(Kind::Zip)
    } else {
        None
    }
}

/// Image members as (path inside the archive, bytes), sorted by path.
///
/// # Errors
/// A damaged archive, and members that are larger than any image should be.
pub(super) fn images(path: &Path) -> Result<Vec<(String, Vec<u8>)>, DataError> {
    let file = File::open(path).map_err(|source| DataError::Read {
        path: path.to_owned(),
        source,
    })?;
    let file = BufReader::new(file);
    let mut members = match kind(path) {
        Some(Kind::Zip) => from_zip(path, file)?,
        Some(Kind::TarGz) => from_tar(path, flate2::read::MultiGzDecoder::new(file))?,
        Some(Kind::Tar) => from_tar(path, file)?,
        None => return Err(malformed(path, "an archive (.tar.gz, .tgz, .tar or .zip) was expected")),
    };
    members.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some(pair) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(malformed(path, format!("the member `{}` is there twice", pair[0].0)));
    }
    Ok(members)
}

fn wanted(name: &Path) -> bool {
    is_image(name) && !name.iter().any(is_hidden_member)
}

fn is_hidden_member(component: &OsStr) -> bool {
    component != "." && component != ".." && is_hidden(component)
}

/// Reads one member within the limits.
fn member(path: &Path, name: &str, reader: impl Read, total: &mut u64) -> Result<Vec<u8>, DataError> {
    let limit = MAX_MEMBER.min(MAX_TOTAL - *total);
    let mut bytes = Vec::new();
    // The size in the header is not trusted: a small archive can declare, and unpack to, anything.
    reader
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| malformed(path, format!("the archive is damaged at `{name}` ({error})")))?;
    if bytes.len() as u64 > limit {
        let problem = format!("`{name}` is larger than {MAX_MEMBER} bytes, or all members together than {MAX_TOTAL}");
        return Err(malformed(path, problem));
    }
    *total += bytes.len() as u64;
    Ok(bytes)
}

fn from_tar(path: &Path, reader: impl Read) -> Result<Vec<(String, Vec<u8>)>, DataError> {
    let damaged = |error: std::io::Error| malformed(path, format!("the archive is damaged or no tar file ({error})"));
    let mut archive = tar::Archive::new(reader);
    let mut members = Vec::new();
    let mut total = 0;
    for entry in archive.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let name: PathBuf = entry.path().map_err(damaged)?.into_owned();
        if !entry.header().entry_type().is_file() || !wanted(&name) {
            continue;
        }
        let name = name.to_string_lossy().trim_start_matches("./").to_owned();
        let bytes = member(path, &name, entry, &mut total)?;
        members.push((name, bytes));
    }
    Ok(members)
}

fn from_zip(path: &Path, reader: BufReader<File>) -> Result<Vec<(String, Vec<u8>)>, DataError> {
    let damaged =
        |error: zip::result::ZipError| malformed(path, format!("the archive is damaged or no zip file ({error})"));
    let mut archive = zip::ZipArchive::new(reader).map_err(damaged)?;
    let mut members = Vec::new();
    let mut total = 0;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(damaged)?;
        let name = entry.name().trim_start_matches("./").to_owned();
        if !entry.is_file() || !wanted(Path::new(&name)) {
            continue;
        }
        let bytes = member(path, &name, entry, &mut total)?;
        members.push((name, bytes));
    }
    Ok(members)
}
