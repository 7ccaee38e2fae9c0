//! Looking at folders and text lists: sorted, hidden files skipped, links that loop not followed.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::data::dataset::DataError;

/// Extensions of the image formats that can be decoded.
const IMAGE_EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "bmp", "gif", "tif", "tiff", "webp"];

/// Deepest nesting of folders below a class folder.
const MAX_DEPTH: usize = 16;

/// One visible entry of a folder.
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) name: OsString,
    pub(super) is_folder: bool,
}

/// Whether a file's name promises an image; hidden files and resource forks (`._x.jpg`) do not.
pub(super) fn is_image(path: &Path) -> bool {
    !path.file_name().is_none_or(is_hidden)
        && path
            .extension()
            .and_then(OsStr::to_str)
            .is_some_and(|found| IMAGE_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(found)))
}

/// Whether a name is hidden, or the folder macOS adds to archives.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'.') || name == "__MACOSX"
}

/// Visible files and folders in byte order of their names; dead and looping links are left out.
pub(super) fn entries(folder: &Path) -> Result<Vec<Entry>, DataError> {
    let failed = |source| DataError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if is_hidden(&name) {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(failed)?;
        let is_folder = if kind.is_symlink() {
            match fs::metadata(&path) {
                Ok(metadata) => metadata.is_dir(),
                Err(_) => continue,
            }
        } else {
            kind.is_dir()
        };
        found.push(Entry { path, name, is_folder });
    }
    found.sort_by(|a, b| a.name.as_encoded_bytes().cmp(b.name.as_encoded_bytes()));
    Ok(found)
}

/// Visible sub-folders in byte order.
pub(super) fn sub_folders(folder: &Path) -> Result<Vec<Entry>, DataError> {
    Ok(entries(folder)?.into_iter().filter(|entry| entry.is_folder).collect())
}

/// All images below a folder in byte order of the path, and how many other files there are.
pub(super) fn images_below(folder: &Path) -> Result<(Vec<PathBuf>, usize), DataError> {
    let mut images = Vec::new();
    let mut others = 0;
    let mut visited = HashSet::new();
    visit(folder, 0, &mut visited, &mut images, &mut others)?;
    images.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok((images, others))
}

fn visit(
    folder: &Path,
    depth: usize,
    visited: &mut HashSet<PathBuf>,
    images: &mut Vec<PathBuf>,
    others: &mut usize,
) -> Result<(), DataError> {
    // Every real folder once: a link to an ancestor would otherwise be followed until the path is too long.
    let real = fs::canonicalize(folder).map_err(|source| DataError::Read {
        path: folder.to_owned(),
        source,
    })?;
    if depth > MAX_DEPTH || !visited.insert(real) {
        return Ok(());
    }
    for entry in entries(folder)? {
        if entry.is_folder {
            visit(&entry.path, depth + 1, visited, images, others)?;
        } else if is_image(&entry.path) {
            images.push(entry.path);
        } else {
            *others += 1;
        }
    }
    Ok(())
}

/// Whether a folder holds an image directly; false when it cannot be read.
pub(super) fn holds_image(folder: &Path) -> bool {
    entries(folder).is_ok_and(|found| found.iter().any(|entry| !entry.is_folder && is_image(&entry.path)))
}

/// A text list, without a byte-order mark.
///
/// # Errors
/// A missing file (`what` says what it is), an unreadable one, and text that is not UTF-8 (with the line).
pub(super) fn text(path: &Path, what: &str) -> Result<String, DataError> {
    if !path.is_file() {
        return Err(DataError::Missing {
            what: what.to_owned(),
            path: path.to_owned(),
        });
    }
    let bytes = fs::read(path).map_err(|source| DataError::Read {
        path: path.to_owned(),
        source,
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count();
        malformed(
            path,
            format!("line {line}: not UTF-8 text; {what} must be saved as UTF-8 (or is damaged)"),
        )
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// A [`DataError::Malformed`].
pub(super) fn malformed(path: &Path, problem: impl Into<String>) -> DataError {
    DataError::Malformed {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// The number a name starts with, when something other than a letter or digit (or nothing) follows it.
pub(super) fn leading_number(name: &str) -> Option<u32> {
    let end = name.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(name.len());
    if name[end..].starts_with(char::is_alphanumeric) {
        return None;
    }
    name[..end].parse().ok()
}
