//! Images to embed, whatever their classes: everything below a folder.

use std::collections::BTreeSet;
use std::path::Path;

use super::scan;
use crate::data::dataset::{DataError, Item, Part, Source};

/// All images below a folder in byte order of their paths, and the names of the folders that hold them.
///
/// The class of an item is the position of its folder in that list: right for one folder per class, harmless otherwise.
///
/// # Errors
/// If the folder is missing, is no folder, or holds no image.
pub fn list_images(folder: &Path) -> Result<(Vec<Item>, Vec<String>), DataError> {
    if !folder.is_dir() {
        return Err(DataError::Missing {
            what: "the folder of images (check the spelling; a single image goes into a folder of its own)".to_owned(),
            path: folder.to_owned(),
        });
    }
    let (paths, others) = scan::images_below(folder)?;
    if paths.is_empty() {
        return Err(DataError::Unusable(format!(
            "{} holds no image: expected .jpg, .png, .webp, .gif, .bmp or .tif files in it or its sub-folders, found {others} other \
             files",
            folder.display()
        )));
    }
    let parent = |path: &Path| path.parent().unwrap_or(folder).display().to_string();
    let names: Vec<String> = paths
        .iter()
        .map(|path| parent(path))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let items = paths
        .into_iter()
        .map(|path| {
            let class = names.binary_search(&parent(&path)).unwrap_or(0) as u32;
            Item {
                source: Source::File(path),
                class,
                part: Part::Unassigned,
                factors: Vec::new(),
            }
        })
        .collect();
    Ok((items, names))
}
