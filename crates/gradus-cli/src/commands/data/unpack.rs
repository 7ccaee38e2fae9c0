//! Archives from elsewhere are unpacked: only files and folders, only below the folder meant for them.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;

use super::catalogue::Kind;
use crate::failure::Failure;

/// Unpacks an archive into a folder, which has to exist.
pub(super) fn unpack(archive: &Path, kind: Kind, into: &Path) -> Result<(), Failure> {
    let damaged = |error: std::io::Error| {
        Failure::new(format!(
            "{} cannot be unpacked into {}: {error}",
            archive.display(),
            into.display()
        ))
    };
    let file = BufReader::new(File::open(archive).map_err(damaged)?);
    match kind {
        Kind::Plain => Ok(()),
        Kind::TarGz => {
            let mut archive_reader = tar::Archive::new(GzDecoder::new(file));
            for entry in archive_reader.entries().map_err(damaged)? {
                let mut entry = entry.map_err(damaged)?;
                let name = entry.path().map_err(damaged)?.into_owned();
                let to = place(into, &name).ok_or_else(|| refused(archive, &name, "leads out of the folder"))?;
                match entry.header().entry_type() {
                    tar::EntryType::Directory => std::fs::create_dir_all(&to).map_err(damaged)?,
                    tar::EntryType::Regular | tar::EntryType::Continuous => write(&mut entry, &to).map_err(damaged)?,
                    // What tar writes about its own entries.
                    tar::EntryType::XGlobalHeader | tar::EntryType::XHeader => {}
                    _ => return Err(refused(archive, &name, "is neither a file nor a folder")),
                }
            }
            Ok(())
        }
        Kind::Zip => {
            let zipped = |error: zip::result::ZipError| damaged(std::io::Error::other(error));
            let mut archive_reader = zip::ZipArchive::new(file).map_err(zipped)?;
            for index in 0..archive_reader.len() {
                let mut entry = archive_reader.by_index(index).map_err(zipped)?;
                let name = PathBuf::from(entry.name());
                let to = place(into, &name).ok_or_else(|| refused(archive, &name, "leads out of the folder"))?;
                if entry.is_dir() {
                    std::fs::create_dir_all(&to).map_err(damaged)?;
                } else if entry.is_symlink() {
                    return Err(refused(archive, &name, "is neither a file nor a folder"));
                } else {
                    write(&mut entry, &to).map_err(damaged)?;
                }
            }
            Ok(())
        }
    }
}

/// Where an entry goes; none if its name leads anywhere but below the folder.
fn place(into: &Path, name: &Path) -> Option<PathBuf> {
    let mut to = into.to_owned();
    for component in name.components() {
        match component {
            Component::Normal(part) if !part.to_string_lossy().contains(['\\', ':']) => to.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(to)
}

fn write(entry: &mut dyn Read, to: &Path) -> std::io::Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::io::copy(entry, &mut File::create(to)?)?;
    Ok(())
}

fn refused(archive: &Path, name: &Path, why: &str) -> Failure {
    Failure::new(format!(
        "{} holds an entry that {why} ({}): nothing of it was kept",
        archive.display(),
        name.display()
    ))
}
