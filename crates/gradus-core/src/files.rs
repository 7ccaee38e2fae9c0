//! Atomic writing: a file is either the complete new one or the untouched old one.

use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes a file through a temporary name in the same folder, synchronises it, then renames it into place.
///
/// # Errors
/// Whatever the writer or the file system reports; the previous file, if any, is then untouched and nothing is left behind.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::Builder::new()
        .prefix(".gradus-")
        .suffix(".tmp")
        .tempfile_in(folder)?;
    {
        let mut buffered = BufWriter::new(temporary.as_file_mut());
        write(&mut buffered)?;
        buffered.flush()?;
    }
    temporary.as_file().sync_all()?;
    // Temporary files are private by default; a run's files should follow the user's umask like any other.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        temporary
            .as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}
