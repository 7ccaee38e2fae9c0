//! Pictures of items: whole files under the image root and nowhere else, and thumbnails.

use std::collections::{HashMap, VecDeque};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use gradus_core::data::{Source, thumbnail as small};

use crate::answer::Refusal;
use crate::items::{Which, missing, served};
use crate::queue::work;
use crate::shared::{Served, Shared};

/// Longer side of a thumbnail in pixels.
const SIDE: u32 = 128;
/// Largest file that is handed out.
const LARGEST_FILE: u64 = 64 << 20;

/// Thumbnails that were made, the oldest of them forgotten.
#[derive(Debug)]
pub(crate) struct Thumbnails {
    kept: Mutex<Kept>,
    most_bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    pictures: HashMap<(usize, String), Arc<Vec<u8>>>,
    order: VecDeque<(usize, String)>,
    bytes: usize,
}

impl Thumbnails {
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self {
            kept: Mutex::default(),
            most_bytes,
        }
    }

    fn get(&self, key: &(usize, String)) -> Option<Arc<Vec<u8>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pictures.get(key).cloned()
    }

    fn put(&self, key: (usize, String), picture: &Arc<Vec<u8>>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.pictures.insert(key.clone(), Arc::clone(picture)).is_none() {
            kept.bytes += picture.len();
            kept.order.push_back(key);
        }
        while kept.bytes > self.most_bytes {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some(gone) = kept.pictures.remove(&oldest) {
                kept.bytes -= gone.len();
            }
        }
    }
}

/// The file of a path below the root: no step up, no link out of it, nothing but a file.
fn inside(root: &Path, relative: &str) -> Option<PathBuf> {
    let relative = Path::new(relative);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || relative.as_os_str().is_empty() {
        return None;
    }
    let resolved = root.join(relative).canonicalize().ok()?;
    (resolved.starts_with(root) && resolved.is_file()).then_some(resolved)
}

/// What a file is, told from its first bytes: nothing but pictures leaves this machine.
fn kind(bytes: &[u8]) -> Option<&'static str> {
    let starts: [(&[u8], &'static str); 7] = [
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"GIF8", "image/gif"),
        (b"BM", "image/bmp"),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
        (b"RIFF", "image/webp"),
    ];
    starts
        .into_iter()
        .find(|(start, _)| bytes.starts_with(start))
        .map(|(_, kind)| kind)
}

fn found(served: &Served, relative: &str) -> Result<PathBuf, Refusal> {
    let root = served
        .root
        .as_ref()
        .ok_or_else(|| Refusal::missing("the index knows no folder of images"))?;
    inside(root, relative).ok_or_else(|| Refusal::missing(format!("there is no image {relative}")))
}

/// A whole image file.
pub(crate) async fn image(
    State(shared): State<Shared>,
    UrlPath(path): UrlPath<String>,
    Query(which): Query<Which>,
) -> Result<Response, Refusal> {
    served(&shared, which.index)?;
    let place = shared.pictures.enter()?;
    let within = Arc::clone(&shared);
    let (kind, bytes) = work(&shared.pictures, &shared, place, move || {
        let file = found(&within.indexes[which.index], &path)?;
        let none = || Refusal::missing(format!("there is no image {path}"));
        let length = file.metadata().map_err(|_| none())?.len();
        if length > LARGEST_FILE {
            return Err(Refusal::missing(format!(
                "{path} is larger than the {} MiB that are handed out",
                LARGEST_FILE >> 20
            )));
        }
        let bytes = std::fs::read(&file).map_err(|_| none())?;
        let kind = kind(&bytes).ok_or_else(none)?;
        Ok((kind, bytes))
    })
    .await?;
    Ok((
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "private, max-age=300"),
        ],
        bytes,
    )
        .into_response())
}

/// A small picture of an item.
pub(crate) async fn thumbnail(
    State(shared): State<Shared>,
    UrlPath(id): UrlPath<String>,
    Query(which): Query<Which>,
) -> Result<Response, Refusal> {
    let item = served(&shared, which.index)?
        .index
        .item(&id)
        .ok_or_else(|| missing(&id))?;
    let key = (which.index, id);
    let picture = match shared.thumbnails.get(&key) {
        Some(picture) => picture,
        None => {
            let place = shared.pictures.enter()?;
            let within = Arc::clone(&shared);
            work(&shared.pictures, &shared, place, move || {
                let served = &within.indexes[key.0];
                let path = item.image.as_deref().ok_or_else(|| {
                    Refusal::missing(format!("{} has no image: the index was built from vectors", item.id))
                })?;
                let file = found(served, path)?;
                let bytes = small(&Source::File(file), SIDE)
                    .map_err(|_| Refusal::missing(format!("the image of {} cannot be decoded", item.id)))?;
                let picture = Arc::new(bytes);
                within.thumbnails.put(key, &picture);
                Ok(picture)
            })
            .await?
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg"),
        (header::CACHE_CONTROL, "private, max-age=300"),
    ];
    Ok((headers, picture.as_ref().clone()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_root_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("root");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(folder.path().join("secret.png"), b"x").unwrap();
        std::fs::write(root.join("a/b.png"), b"x").unwrap();
        assert!(inside(&root, "a/b.png").is_some());
        for path in [
            "../secret.png",
            "a/../../secret.png",
            "/etc/passwd",
            "",
            ".",
            "a",
            "a/b.png/..",
            "missing.png",
            "a\0b",
        ] {
            assert_eq!(inside(&root, path), None, "{path}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(folder.path().join("secret.png"), root.join("link.png")).unwrap();
            std::os::unix::fs::symlink(folder.path(), root.join("up")).unwrap();
            assert_eq!(inside(&root, "link.png"), None);
            assert_eq!(inside(&root, "up/secret.png"), None);
        }
    }

    #[test]
    fn old_thumbnails_are_forgotten() {
        let kept = Thumbnails::new(25);
        let picture = Arc::new(vec![0_u8; 10]);
        for number in 0..5 {
            kept.put((0, number.to_string()), &picture);
        }
        assert!(kept.get(&(0, "2".into())).is_none() && kept.get(&(0, "4".into())).is_some());
        assert!(kept.kept.lock().unwrap().bytes <= 25);
        assert_eq!(kind(b"root:x:0"), None);
    }
}
