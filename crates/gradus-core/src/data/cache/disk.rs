//! Decoded images in one file: pixels behind one another, then an index, then where the index is.
//!
//! All numbers are little-endian. The file starts with [`MAGIC`], the version of decoding and four bytes of zero. Pixels are
//! rows of RGB bytes. The index has a record of [`RECORD`] bytes per image; the last [`TRAILER`] bytes give the index's place,
//! its number of records and its checksum, and [`MAGIC`] again, which a file cut short does not end with.
//!
//! A grown cache is the old file copied under a temporary name, its index written over by new pixels and a new index: places
//! in the file stay as they are, so that readers of the old file can go on in the new one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use image::RgbImage;
use tempfile::NamedTempFile;

use crate::data::dataset::Source;
use crate::data::image::{DECODING_VERSION, Decoding, ImageError, decode_as, turn};
use crate::files::{read_exact_at, write_all_at};

const MAGIC: [u8; 8] = *b"GRADUSPX";
const HEADER: u64 = 16;
const RECORD: usize = 56;
const TRAILER: usize = 32;

/// How temporary files of this cache are named.
const TEMPORARY: (&str, &str) = (".gradus-pixels-", ".tmp");

/// A temporary file that was not written to for so long was left by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// What must be the same for kept pixels to count: which image, its size in bytes, and when it was changed (of an image
/// inside an archive: its checksum).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Fingerprint {
    name: u128,
    length: u64,
    seconds: i64,
    nanoseconds: u32,
}

impl Fingerprint {
    fn of(source: &Source) -> Option<Self> {
        match source {
            Source::File(path) => {
                let metadata = std::fs::metadata(path).ok()?;
                let absolute = std::path::absolute(path).ok()?;
                let (seconds, nanoseconds) = since_1970(metadata.modified().ok()?);
                Some(Self {
                    name: hash(absolute.as_os_str().as_encoded_bytes()),
                    length: metadata.len(),
                    seconds,
                    nanoseconds,
                })
            }
            Source::Encoded { name, bytes } => Some(Self {
                name: hash(name.as_bytes()),
                length: bytes.len() as u64,
                seconds: i64::from(checksum(bytes)),
                nanoseconds: u32::MAX,
            }),
            Source::Drawn { .. } | Source::Turned { .. } | Source::Vector { .. } => None,
        }
    }
}

/// Seconds and nanoseconds; times before 1970 count backwards.
fn since_1970(time: SystemTime) -> (i64, u32) {
    let parts = |duration: Duration| {
        (
            i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            duration.subsec_nanos(),
        )
    };
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => parts(after),
        Err(before) => {
            let (seconds, nanoseconds) = parts(before.duration());
            (-seconds, nanoseconds)
        }
    }
}

/// FNV-1a with 128 bits (Fowler, Noll and Vo, 1991): names need not be stored, and no two of a data set fall together.
fn hash(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, &byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut checksum = flate2::Crc::new();
    checksum.update(bytes);
    checksum.sum()
}

/// Where an image's pixels are.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    width: u32,
    height: u32,
    offset: u64,
    checksum: u32,
}

impl Entry {
    /// Bytes of its pixels; no two sides of 32 bits overflow.
    fn length(&self) -> u128 {
        3 * u128::from(self.width) * u128::from(self.height)
    }
}

/// The file that is read, and whether it is being written.
#[derive(Debug)]
struct State {
    entries: HashMap<Fingerprint, Entry>,
    file: Option<Arc<File>>,
    /// Where pixels end and the next ones go.
    end: u64,
    writing: Writing,
}

#[derive(Debug)]
enum Writing {
    NotBegun,
    Begun(NamedTempFile),
    Over,
}

/// See [`super::DecodedCache::on_disk`].
#[derive(Debug)]
pub(super) struct DiskCache {
    path: PathBuf,
    limit: u64,
    decoding: Decoding,
    state: Mutex<State>,
    notes: Mutex<Vec<String>>,
}

impl DiskCache {
    pub(super) fn open(path: PathBuf, limit: u64, decoding: Decoding) -> Self {
        let cache = Self {
            path,
            limit,
            decoding,
            state: Mutex::new(State {
                entries: HashMap::new(),
                file: None,
                end: HEADER,
                writing: Writing::NotBegun,
            }),
            notes: Mutex::default(),
        };
        cache.read_file(&mut cache.lock());
        cache
    }

    /// Bytes of pixels in the file.
    pub(super) fn used(&self) -> u64 {
        self.lock().end - HEADER
    }

    pub(super) fn notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn get(&self, source: &Source) -> Result<Arc<RgbImage>, ImageError> {
        if let Source::Turned { source, quarters } = source {
            return Ok(turn(self.get(source)?, *quarters));
        }
        // Taken before decoding: a file that changes meanwhile is not kept under its new fingerprint.
        let Some(fingerprint) = Fingerprint::of(source) else {
            return decode_as(source, self.decoding);
        };
        if let Some(pixels) = self.read(fingerprint, &source.name()) {
            return Ok(Arc::new(pixels));
        }
        let pixels = decode_as(source, self.decoding)?;
        self.write(fingerprint, &pixels);
        Ok(pixels)
    }

    pub(super) fn check(&self, source: &Source) -> Result<(), ImageError> {
        if let Source::Turned { source, .. } = source {
            return self.check(source);
        }
        let within = |entry: &Entry| entry.length() <= 3 * u128::from(self.decoding.pixel_limit);
        let known = Fingerprint::of(source).is_some_and(|key| self.lock().entries.get(&key).is_some_and(within));
        if known {
            return Ok(());
        }
        self.get(source).map(drop)
    }

    /// Puts the temporary file in the place of the old one.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        let Writing::Begun(temporary) = std::mem::replace(&mut state.writing, Writing::Over) else {
            return;
        };
        if let Err(problem) = publish(temporary, &state, &self.path) {
            self.give_up(&mut state, &problem.to_string());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(note);
    }

    /// Reads the index of the file at `path`, if there is one that can be used.
    fn read_file(&self, state: &mut State) {
        (state.entries, state.file, state.end) = (HashMap::new(), None, HEADER);
        match read_index(&self.path, self.decoding) {
            Ok(Some((file, entries, end))) => {
                let live: u128 = entries.values().map(Entry::length).sum();
                // A file of which more than half are images that have changed since is not worth its copy.
                if 2 * live >= u128::from(end - HEADER) {
                    (state.entries, state.file, state.end) = (entries, Some(Arc::new(file)), end);
                }
            }
            Ok(None) => {}
            Err(problem) => self.note(format!(
                "the cache of decoded images {} cannot be used and is made anew: {problem}",
                self.path.display()
            )),
        }
    }

    /// The kept pixels of an image.
    fn read(&self, fingerprint: Fingerprint, name: &str) -> Option<RgbImage> {
        let (file, entry) = {
            let state = self.lock();
            (state.file.clone()?, *state.entries.get(&fingerprint)?)
        };
        if entry.length() > 3 * u128::from(self.decoding.pixel_limit) {
            // Decoding says what is wrong.
            return None;
        }
        let mut pixels = vec![0; usize::try_from(entry.length()).ok()?];
        let problem = match read_exact_at(&file, &mut pixels, entry.offset) {
            Ok(()) if checksum(&pixels) == entry.checksum => {
                return RgbImage::from_raw(entry.width, entry.height, pixels);
            }
            Ok(()) => "its checksum is wrong".to_owned(),
            Err(error) => error.to_string(),
        };
        let mut state = self.lock();
        // Only once for each image, and only if no other thread has replaced it.
        if state.entries.get(&fingerprint) == Some(&entry) {
            state.entries.remove(&fingerprint);
            self.note(format!(
                "the cache of decoded images {} is damaged at {name} ({problem}), which is decoded again; delete the cache \
                 and it is made anew",
                self.path.display()
            ));
        }
        None
    }

    /// Keeps pixels, if there is room.
    fn write(&self, fingerprint: Fingerprint, pixels: &RgbImage) {
        let length = pixels.as_raw().len() as u64;
        let (file, offset) = {
            let mut state = self.lock();
            let fits = state.end.checked_add(length).is_some_and(|end| end <= self.limit);
            if matches!(state.writing, Writing::Over) || !fits {
                return;
            }
            if matches!(state.writing, Writing::NotBegun)
                && let Err(problem) = begin(&mut state, &self.path, self.decoding)
            {
                return self.give_up(&mut state, &problem.to_string());
            }
            let Some(file) = state.file.clone() else { return };
            let offset = state.end;
            state.end += length;
            (file, offset)
        };
        // Without the lock: its place is its own.
        let written = write_all_at(&file, pixels.as_raw(), offset);
        let mut state = self.lock();
        if !matches!(state.writing, Writing::Begun(_)) {
            return;
        }
        match written {
            Ok(()) => {
                let entry = Entry {
                    width: pixels.width(),
                    height: pixels.height(),
                    offset,
                    checksum: checksum(pixels.as_raw()),
                };
                state.entries.insert(fingerprint, entry);
            }
            Err(problem) => self.give_up(&mut state, &problem.to_string()),
        }
    }

    /// Removes the temporary file and goes on with what there was before.
    fn give_up(&self, state: &mut State, problem: &str) {
        state.writing = Writing::Over;
        self.note(format!(
            "the cache of decoded images {} cannot be written ({problem}): images that it does not hold are decoded in every \
             epoch; name another folder with data.cache-folder, or free space",
            self.path.display()
        ));
        self.read_file(state);
    }
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The folder of a file.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Begins a temporary file with what the old one holds.
fn begin(state: &mut State, path: &Path, decoding: Decoding) -> std::io::Result<()> {
    let folder = folder(path);
    std::fs::create_dir_all(folder)?;
    remove_abandoned(folder);
    let (prefix, suffix) = TEMPORARY;
    let temporary = tempfile::Builder::new()
        .prefix(prefix)
        .suffix(suffix)
        .tempfile_in(folder)?;
    let file = temporary.as_file().try_clone()?;
    match &state.file {
        Some(old) => {
            let mut old = old.as_ref();
            old.rewind()?;
            std::io::copy(&mut old.take(state.end), &mut &file)?;
        }
        None => {
            let mut header = MAGIC.to_vec();
            header.extend(DECODING_VERSION.to_le_bytes());
            header.extend(decoding.jpeg_short_side.to_le_bytes());
            write_all_at(&file, &header, 0)?;
        }
    }
    state.file = Some(Arc::new(file));
    state.writing = Writing::Begun(temporary);
    Ok(())
}

/// Removes temporary files of processes that were killed; what cannot be removed stays.
fn remove_abandoned(folder: &Path) {
    let Ok(files) = std::fs::read_dir(folder) else { return };
    for file in files.flatten() {
        let name = file.file_name();
        let name = name.to_string_lossy();
        let old = |metadata: std::fs::Metadata| {
            metadata
                .modified()
                .is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed > ABANDONED))
        };
        if name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1) && file.metadata().is_ok_and(old) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// Writes the index and renames the file. It is not forced onto the disk, which can take minutes: checksums notice what a
/// power failure has torn.
fn publish(temporary: NamedTempFile, state: &State, path: &Path) -> std::io::Result<()> {
    // Of an image that has changed, the newest state is the one with the last place.
    let mut newest: HashMap<u128, u64> = HashMap::new();
    for (fingerprint, entry) in &state.entries {
        let last = newest.entry(fingerprint.name).or_default();
        *last = entry.offset.max(*last);
    }
    let mut records: Vec<(&Fingerprint, &Entry)> = state
        .entries
        .iter()
        .filter(|(fingerprint, entry)| newest.get(&fingerprint.name) == Some(&entry.offset))
        .collect();
    records.sort_unstable_by_key(|(_, entry)| entry.offset);
    let mut index = Vec::with_capacity(records.len() * RECORD + TRAILER);
    for (fingerprint, entry) in &records {
        index.extend(fingerprint.name.to_le_bytes());
        index.extend(fingerprint.length.to_le_bytes());
        index.extend(fingerprint.seconds.to_le_bytes());
        index.extend(fingerprint.nanoseconds.to_le_bytes());
        index.extend(entry.width.to_le_bytes());
        index.extend(entry.height.to_le_bytes());
        index.extend(entry.offset.to_le_bytes());
        index.extend(entry.checksum.to_le_bytes());
    }
    let index_checksum = checksum(&index);
    index.extend(state.end.to_le_bytes());
    index.extend((records.len() as u64).to_le_bytes());
    index.extend(u64::from(index_checksum).to_le_bytes());
    index.extend(MAGIC);
    write_all_at(temporary.as_file(), &index, state.end)?;
    crate::files::make_readable(temporary.as_file())?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A file that can be used: the file, its entries and where its pixels end.
type Index = (File, HashMap<Fingerprint, Entry>, u64);

/// Reads the index of a file; `None` if there is no file.
fn read_index(path: &Path, decoding: Decoding) -> Result<Option<Index>, String> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let said = |error: std::io::Error| error.to_string();
    let length = file.metadata().map_err(said)?.len();
    let damaged = || "it is damaged or was cut short".to_owned();
    if length < HEADER + TRAILER as u64 {
        return Err(damaged());
    }
    let mut header = [0; HEADER as usize];
    file.read_exact(&mut header).map_err(said)?;
    let mut trailer = [0; TRAILER];
    read_exact_at(&file, &mut trailer, length - TRAILER as u64).map_err(said)?;
    if header[..8] != MAGIC || trailer[24..] != MAGIC {
        return Err(damaged());
    }
    if number::<4>(&header, 8).map(u32::from_le_bytes) != Some(DECODING_VERSION) {
        return Err("another version of gradus wrote it".to_owned());
    }
    if number::<4>(&header, 12).map(u32::from_le_bytes) != Some(decoding.jpeg_short_side) {
        return Err("its JPEG images were decoded at another size".to_owned());
    }
    let word = |at: usize| number::<8>(&trailer, at).map(u64::from_le_bytes).ok_or_else(damaged);
    let (end, count, expected) = (word(0)?, word(8)?, word(16)?);
    let bytes = count.checked_mul(RECORD as u64).ok_or_else(damaged)?;
    let whole = end.checked_add(bytes).and_then(|sum| sum.checked_add(TRAILER as u64));
    if end < HEADER || whole != Some(length) {
        return Err(damaged());
    }
    let mut index = vec![0; usize::try_from(bytes).map_err(|_| damaged())?];
    read_exact_at(&file, &mut index, end).map_err(said)?;
    if u64::from(checksum(&index)) != expected {
        return Err(damaged());
    }
    let mut entries = HashMap::with_capacity(index.len() / RECORD);
    let mut places = HashSet::new();
    for record in index.chunks_exact(RECORD) {
        let (fingerprint, entry) = parse(record).ok_or_else(damaged)?;
        let inside = entry.offset >= HEADER && u128::from(entry.offset) + entry.length() <= u128::from(end);
        if !inside || !places.insert(entry.offset) {
            return Err(damaged());
        }
        entries.insert(fingerprint, entry);
    }
    Ok(Some((file, entries, end)))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn parse(record: &[u8]) -> Option<(Fingerprint, Entry)> {
    let fingerprint = Fingerprint {
        name: u128::from_le_bytes(number(record, 0)?),
        length: u64::from_le_bytes(number(record, 16)?),
        seconds: i64::from_le_bytes(number(record, 24)?),
        nanoseconds: u32::from_le_bytes(number(record, 32)?),
    };
    let entry = Entry {
        width: u32::from_le_bytes(number(record, 36)?),
        height: u32::from_le_bytes(number(record, 40)?),
        offset: u64::from_le_bytes(number(record, 44)?),
        checksum: u32::from_le_bytes(number(record, 52)?),
    };
    Some((fingerprint, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 20;

    fn picture(number: u32) -> RgbImage {
        RgbImage::from_fn(10 + number, 9, |x, y| {
            image::Rgb([x * 20, y * 25, number * 40].map(|value| (value % 256) as u8))
        })
    }

    /// Four picture files in a folder, and where their cache is.
    fn pictures() -> (tempfile::TempDir, Vec<Source>, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let sources = (0..4)
            .map(|number| {
                let path = folder.path().join(format!("{number}.png"));
                picture(number).save(&path).unwrap();
                Source::File(path)
            })
            .collect();
        let cache = folder.path().join("cache/of these.pixels");
        (folder, sources, cache)
    }

    fn path(source: &Source) -> &Path {
        match source {
            Source::File(path) => path,
            _ => panic!("a file"),
        }
    }

    /// Makes a picture unreadable without changing its fingerprint: what is still right came out of the cache.
    fn spoil(source: &Source) {
        let path = path(source);
        let metadata = std::fs::metadata(path).unwrap();
        std::fs::write(path, vec![7; metadata.len() as usize]).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(metadata.modified().unwrap()).unwrap();
    }

    fn all_right(cache: &DiskCache, sources: &[Source]) {
        for (number, source) in sources.iter().enumerate() {
            assert_eq!(*cache.get(source).unwrap(), picture(number as u32), "{number}");
        }
    }

    fn filled(path: &Path, sources: &[Source]) {
        let cache = DiskCache::open(path.to_owned(), LIMIT, Decoding::default());
        for source in sources {
            cache.check(source).unwrap();
        }
        cache.finish();
        assert_eq!(cache.notes(), Vec::<String>::new());
    }

    /// Files in the cache's folder.
    fn files(path: &Path) -> usize {
        std::fs::read_dir(folder(path)).unwrap().count()
    }

    #[test]
    fn later_runs_do_not_decode() {
        let (_folder, sources, path) = pictures();
        filled(&path, &sources);
        sources.iter().for_each(spoil);
        let cache = DiskCache::open(path.clone(), LIMIT, Decoding::default());
        all_right(&cache, &sources);
        assert!(sources.iter().all(|source| cache.check(source).is_ok()));
        let turned = Source::Turned {
            source: Arc::new(sources[1].clone()),
            quarters: 1,
        };
        assert_eq!(*cache.get(&turned).unwrap(), image::imageops::rotate90(&picture(1)));
        // The limit of pixels holds for kept images too; this one must be decoded to say so, and is spoilt.
        let small = Decoding {
            pixel_limit: 10,
            ..Decoding::default()
        };
        let limited = DiskCache::open(path.clone(), LIMIT, small);
        assert!(limited.get(&sources[0]).is_err() && limited.check(&sources[0]).is_err());
        drop(limited);
        assert_eq!((cache.notes(), files(&path)), (vec![], 1));
    }

    #[test]
    fn pixels_of_another_size_do_not_count() {
        let (_folder, sources, path) = pictures();
        filled(&path, &sources);
        let reduced = Decoding {
            jpeg_short_side: 8,
            ..Decoding::default()
        };
        let cache = DiskCache::open(path, LIMIT, reduced);
        assert_eq!(cache.lock().entries.len(), 0);
        assert!(cache.notes()[0].contains("decoded at another size"));
        all_right(&cache, &sources);
    }

    #[test]
    fn a_changed_file_is_decoded_anew_and_replaces_the_old_one() {
        let (_folder, sources, path_of_cache) = pictures();
        filled(&path_of_cache, &sources);
        picture(9).save(path(&sources[2])).unwrap();
        let later = SystemTime::now() + Duration::from_secs(5);
        File::options()
            .write(true)
            .open(path(&sources[2]))
            .unwrap()
            .set_modified(later)
            .unwrap();
        let cache = DiskCache::open(path_of_cache.clone(), LIMIT, Decoding::default());
        assert_eq!(*cache.get(&sources[2]).unwrap(), picture(9));
        drop(cache);
        sources.iter().for_each(spoil);
        let cache = DiskCache::open(path_of_cache.clone(), LIMIT, Decoding::default());
        assert_eq!(*cache.get(&sources[2]).unwrap(), picture(9));
        all_right(&cache, &sources[..2]);
        assert_eq!(cache.lock().entries.len(), 4);
    }

    #[test]
    fn a_cache_grows_and_images_of_archives_are_told_apart_by_content() {
        let (_folder, mut sources, path) = pictures();
        filled(&path, &sources[..2]);
        spoil(&sources[0]);
        let bytes = std::fs::read(super::tests::path(&sources[3])).unwrap();
        sources[3] = Source::Encoded {
            name: "inside/3.png".to_owned(),
            bytes: bytes.into(),
        };
        filled(&path, &sources);
        spoil(&sources[2]);
        let cache = DiskCache::open(path, LIMIT, Decoding::default());
        all_right(&cache, &sources);
        assert_eq!(cache.lock().entries.len(), 4);
        assert!(matches!(cache.lock().writing, Writing::NotBegun));
        let same_name = Source::Encoded {
            name: "inside/3.png".to_owned(),
            bytes: std::fs::read(super::tests::path(&sources[1])).unwrap().into(),
        };
        assert_eq!(*cache.get(&same_name).unwrap(), picture(1));
    }

    #[test]
    fn damaged_pixels_are_noticed_and_decoded_again() {
        let (_folder, sources, path) = pictures();
        filled(&path, &sources);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEADER as usize + 5] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let cache = DiskCache::open(path, LIMIT, Decoding::default());
        all_right(&cache, &sources);
        all_right(&cache, &sources);
        let notes = cache.notes();
        assert!(
            notes.len() == 1 && notes[0].contains("0.png (its checksum is wrong)"),
            "{notes:?}"
        );
    }

    #[test]
    fn a_damaged_file_is_made_anew_wherever_it_is_damaged() {
        let (_folder, sources, path) = pictures();
        filled(&path, &sources);
        let whole = std::fs::read(&path).unwrap();
        let index = whole.len() - TRAILER - 4 * RECORD;
        let cut = [0, 1, 20, index, whole.len() - 1].map(|length| whole[..length].to_vec());
        let flipped = [
            3,
            9,
            index + 40,
            whole.len() - 30,
            whole.len() - 20,
            whole.len() - 10,
            whole.len() - 1,
        ]
        .map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            bytes
        });
        for bytes in cut.into_iter().chain(flipped) {
            std::fs::write(&path, &bytes).unwrap();
            let cache = DiskCache::open(path.clone(), LIMIT, Decoding::default());
            let notes = cache.notes();
            assert!(notes.len() == 1 && notes[0].contains("is made anew"), "{notes:?}");
            all_right(&cache, &sources);
            drop(cache);
            let again = DiskCache::open(path.clone(), LIMIT, Decoding::default());
            assert_eq!((again.notes(), again.lock().entries.len()), (vec![], 4));
        }
    }

    #[test]
    fn processes_share_it() {
        let (_folder, sources, path) = pictures();
        filled(&path, &sources[..1]);
        let (one, other) = (
            DiskCache::open(path.clone(), LIMIT, Decoding::default()),
            DiskCache::open(path.clone(), LIMIT, Decoding::default()),
        );
        all_right(&one, &sources);
        all_right(&other, &sources[..3]);
        one.finish();
        sources[..3].iter().for_each(spoil);
        // Each goes on with its own, whole file.
        all_right(&one, &sources);
        all_right(&other, &sources[..3]);
        other.finish();
        all_right(&one, &sources);
        let third = DiskCache::open(path.clone(), LIMIT, Decoding::default());
        all_right(&third, &sources[..3]);
        assert_eq!((third.notes(), files(&path)), (vec![], 1));
    }

    #[test]
    fn the_limit_holds() {
        let (_folder, sources, path) = pictures();
        let limit = HEADER + 3 * 9 * (10 + 11);
        let cache = DiskCache::open(path.clone(), limit, Decoding::default());
        all_right(&cache, &sources);
        let kept = cache.lock().entries.len();
        assert_eq!((kept, cache.used()), (2, limit - HEADER));
        cache.finish();
        all_right(&DiskCache::open(path.clone(), 0, Decoding::default()), &sources);
        assert_eq!(
            std::fs::metadata(&path).unwrap().len(),
            limit + (2 * RECORD + TRAILER) as u64
        );
    }

    #[test]
    fn what_cannot_be_written_costs_the_cache_only() {
        let (folder, sources, path) = pictures();
        // A file stands where the folder should be.
        let cache = DiskCache::open(
            super::tests::path(&sources[0]).join("cache"),
            LIMIT,
            Decoding::default(),
        );
        all_right(&cache, &sources);
        let notes = cache.notes();
        assert!(notes.iter().any(|note| note.contains("cannot be written")), "{notes:?}");
        // A disk that gets full on the way: what there was before still counts.
        filled(&path, &sources[..1]);
        let cache = DiskCache::open(path.clone(), LIMIT, Decoding::default());
        all_right(&cache, &sources);
        cache.give_up(&mut cache.lock(), "no space left");
        spoil(&sources[0]);
        all_right(&cache, &sources);
        let notes = cache.notes();
        assert!(notes.len() == 1 && notes[0].contains("no space left"), "{notes:?}");
        drop(cache);
        assert_eq!(
            (
                files(&path),
                DiskCache::open(path.clone(), LIMIT, Decoding::default())
                    .lock()
                    .entries
                    .len()
            ),
            (1, 1)
        );
        drop(folder);
    }

    #[test]
    fn files_of_killed_processes_are_removed() {
        let (_folder, sources, path) = pictures();
        std::fs::create_dir_all(folder(&path)).unwrap();
        let leave = |name: &str, age: u64| {
            let file = File::create(folder(&path).join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        leave(".gradus-pixels-old.tmp", 200_000);
        leave(".gradus-pixels-new.tmp", 10);
        leave("something else.tmp", 200_000);
        filled(&path, &sources);
        assert_eq!(files(&path), 3);
        assert!(!folder(&path).join(".gradus-pixels-old.tmp").exists());
    }
}
