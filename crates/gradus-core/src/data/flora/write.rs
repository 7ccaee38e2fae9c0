//! Writing a drawn data set as PNG files in class folders, with the table of factors beside them.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;

use crate::data::{DataError, Dataset, Source};

/// Name of the table of factors: `path,class,` and one column per factor, circular ones with their period in brackets.
pub const FACTORS_FILE: &str = "factors.csv";

/// Writes the images of a drawn data set to `out` as `CLASS/NUMBER.png`, and [`FACTORS_FILE`].
///
/// The table starts `path,class,rotation_deg[360],tilt_deg,light_deg[360],growth`: paths are relative to `out` with `/`,
/// classes are names. Everything is written to a temporary sibling of `out` that is renamed at the end: `out` is either
/// complete or not there.
///
/// # Errors
/// [`DataError::Unusable`] if `out` is a file or a folder that is not empty, if an item was not drawn in memory, or if
/// the file system refuses; nothing is left behind then.
pub fn write(dataset: &Dataset, out: &Path) -> Result<(), DataError> {
    let pictures = drawn(dataset)?;
    let out = target(out)?;
    let parent = out.parent().ok_or_else(|| {
        DataError::Unusable(format!(
            "cannot write a data set to {}: name a folder inside it",
            out.display()
        ))
    })?;
    std::fs::create_dir_all(parent).map_err(|error| refused(parent, &error))?;
    let temporary = tempfile::Builder::new()
        .prefix(".gradus-flora-")
        .tempdir_in(parent)
        .map_err(|error| refused(parent, &error))?;
    // A folder inside the private temporary one has the permissions the user's umask gives.
    let staged = temporary.path().join("flora");
    let folders: BTreeSet<&Path> = pictures.iter().filter_map(|picture| picture.path.parent()).collect();
    std::fs::create_dir(&staged).map_err(|error| refused(&staged, &error))?;
    for folder in folders {
        std::fs::create_dir_all(staged.join(folder)).map_err(|error| refused(&staged.join(folder), &error))?;
    }
    pictures.par_iter().try_for_each(|picture| {
        let path = staged.join(picture.path);
        picture
            .pixels
            .save_with_format(&path, image::ImageFormat::Png)
            .map_err(|error| refused(&path, &error))
    })?;
    let table = staged.join(FACTORS_FILE);
    write_table(dataset, &pictures, &table).map_err(|error| refused(&table, &error))?;
    // Windows does not rename over an empty folder; `target` has made sure that it is empty.
    if out.exists() {
        std::fs::remove_dir(&out).map_err(|error| refused(&out, &error))?;
    }
    std::fs::rename(&staged, &out).map_err(|error| refused(&out, &error))
}

struct Picture<'a> {
    path: &'a Path,
    pixels: &'a image::RgbImage,
}

fn drawn(dataset: &Dataset) -> Result<Vec<Picture<'_>>, DataError> {
    let mut seen = BTreeSet::new();
    dataset
        .items
        .iter()
        .map(|item| {
            let Source::Drawn { name, pixels } = &item.source else {
                return Err(DataError::Unusable(format!(
                    "{} is not a drawn image: only data sets made by `generate` are written this way",
                    item.source.name()
                )));
            };
            let path = Path::new(name);
            let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
            if !inside || !seen.insert(path) || path == Path::new(FACTORS_FILE) {
                return Err(DataError::Unusable(format!(
                    "the image name {name:?} cannot be a file of the data set: names must be relative, without `..`, and \
                     each used once"
                )));
            }
            if dataset.classes.get(item.class as usize).is_none() || item.factors.len() != dataset.factors.len() {
                return Err(DataError::Unusable(format!(
                    "{name} has class {} of {} and {} factors of {}: the data set is not consistent",
                    item.class,
                    dataset.classes.len(),
                    item.factors.len(),
                    dataset.factors.len()
                )));
            }
            Ok(Picture { path, pixels })
        })
        .collect()
}

/// The folder to write, made absolute when it exists, so that `.` has a parent.
fn target(out: &Path) -> Result<PathBuf, DataError> {
    let metadata = match std::fs::metadata(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return std::path::absolute(out).map_err(|error| refused(out, &error));
        }
        other => other.map_err(|error| refused(out, &error))?,
    };
    if !metadata.is_dir() {
        return Err(DataError::Unusable(format!(
            "cannot write a data set to {}: a file of that name is there; choose another folder",
            out.display()
        )));
    }
    let mut entries = std::fs::read_dir(out).map_err(|error| refused(out, &error))?;
    if entries.next().is_some() {
        return Err(DataError::Unusable(format!(
            "cannot write a data set to {}: the folder is not empty; choose another one or empty it first",
            out.display()
        )));
    }
    out.canonicalize().map_err(|error| refused(out, &error))
}

fn write_table(dataset: &Dataset, pictures: &[Picture<'_>], path: &Path) -> Result<(), csv::Error> {
    let mut table = csv::Writer::from_path(path)?;
    let columns = dataset.factors.iter().map(|factor| match factor.period {
        Some(period) => format!("{}[{period}]", factor.name),
        None => factor.name.clone(),
    });
    table.write_record(["path", "class"].into_iter().map(str::to_owned).chain(columns))?;
    for (item, picture) in dataset.items.iter().zip(pictures) {
        let parts: Vec<_> = picture.path.iter().map(|part| part.to_string_lossy()).collect();
        let class = dataset.classes[item.class as usize].name.clone();
        // The shortest text that reads back as the same number.
        let factors = item.factors.iter().map(ToString::to_string);
        table.write_record([parts.join("/"), class].into_iter().chain(factors))?;
    }
    table.flush()?;
    Ok(())
}

fn refused(path: &Path, error: &dyn std::fmt::Display) -> DataError {
    DataError::Unusable(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::flora::{FloraConfig, generate};

    fn flora() -> Dataset {
        generate(&FloraConfig {
            species: 3,
            images: 2,
            size: 16,
            seed: 4,
        })
        .unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_written_reads_back_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let (flora, out) = (flora(), folder.path().join("new/flora"));
        write(&flora, &out).unwrap();
        assert_eq!(
            names(&out),
            ["factors.csv", "species_001", "species_002", "species_003"]
        );
        assert_eq!(names(out.parent().unwrap()), ["flora"], "something temporary was left");
        let text = std::fs::read_to_string(out.join(FACTORS_FILE)).unwrap();
        assert!(
            text.starts_with("path,class,rotation_deg[360],tilt_deg,light_deg[360],growth\n"),
            "{text}"
        );
        let mut table = csv::Reader::from_path(out.join(FACTORS_FILE)).unwrap();
        let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), flora.items.len());
        for (row, item) in rows.iter().zip(&flora.items) {
            assert_eq!(row[0], item.source.name());
            assert_eq!(row[1], flora.classes[item.class as usize].name);
            let factors: Vec<f32> = row.iter().skip(2).map(|value| value.parse().unwrap()).collect();
            assert_eq!(factors, item.factors);
            let Source::Drawn { pixels, .. } = &item.source else {
                panic!("not drawn")
            };
            assert_eq!(image::open(out.join(&row[0])).unwrap().to_rgb8(), **pixels);
        }
    }

    #[test]
    fn only_an_empty_folder_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        write(&flora(), &empty).unwrap();
        assert_eq!(names(&empty).len(), 4);

        let full = folder.path().join("full");
        std::fs::create_dir(&full).unwrap();
        std::fs::write(full.join("mine.txt"), "precious").unwrap();
        assert!(write(&flora(), &full).unwrap_err().to_string().contains("not empty"));
        assert_eq!(names(&full), ["mine.txt"]);
        let file = full.join("mine.txt");
        assert!(
            write(&flora(), &file)
                .unwrap_err()
                .to_string()
                .contains("a file of that name")
        );
        assert!(write(&flora(), &file.join("below")).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        assert!(write(&flora(), Path::new("/")).is_err());
    }

    #[test]
    fn a_data_set_that_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("flora");
        let renamed = |name: &str| {
            let mut flora = flora();
            if let Source::Drawn { name: old, .. } = &mut flora.items[5].source {
                *old = name.to_owned();
            }
            flora
        };
        let mut from_file = flora();
        from_file.items[2].source = Source::File("photo.png".into());
        let mut inconsistent = flora();
        inconsistent.items[0].factors.pop();
        // The name of a file used as a folder fails half-way through the writing.
        let half_way = renamed("factors.csv/0001.png");
        for bad in [
            renamed("../0001.png"),
            renamed("species_001/0001.png"),
            from_file,
            inconsistent,
            half_way,
        ] {
            assert!(write(&bad, &out).is_err());
            assert!(
                names(folder.path()).is_empty(),
                "left behind: {:?}",
                names(folder.path())
            );
        }
    }
}
