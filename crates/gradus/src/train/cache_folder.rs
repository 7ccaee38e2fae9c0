//! Where a user's programs keep what can be made again.

use std::path::PathBuf;

/// `gradus` in the cache folder of the user; `None` where the system names none.
pub(super) fn user_cache_folder() -> Option<PathBuf> {
    let of = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let system = || {
        if cfg!(windows) {
            of("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            of("HOME").map(|home| home.join("Library/Caches"))
        } else {
            of("HOME").map(|home| home.join(".cache"))
        }
    };
    of("XDG_CACHE_HOME").or_else(system).map(|folder| folder.join("gradus"))
}
