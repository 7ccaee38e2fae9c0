//! `gradus data get` against a server of this machine that breaks off, lies and sends archives that want out of their folder.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::{json, path, refused};
use md5::{Digest, Md5};

/// How a file is served.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Whole,
    /// Every answer ends after a third of the file, whatever was promised.
    InThirds,
    /// As a server that knows no ranges.
    WithoutRanges,
    /// The first answer falls silent after a third of the file, its connection open.
    SilentOnce,
    /// Every answer falls silent before its first byte.
    Silent,
}

/// Paths and ranges asked for.
type Log = Vec<(String, Option<usize>)>;

struct Server {
    address: String,
    asked: Arc<Mutex<Log>>,
}

fn serve(files: HashMap<String, (Vec<u8>, Manner)>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming().flatten() {
            open.extend(answer(stream, &files, &log).ok().flatten());
        }
    });
    Server { address, asked }
}

/// Returns the connection where it must stay open.
fn answer(
    mut stream: TcpStream,
    files: &HashMap<String, (Vec<u8>, Manner)>,
    log: &Mutex<Log>,
) -> std::io::Result<Option<TcpStream>> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap()?;
    let name = first.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
    let mut from = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse::<usize>().ok();
        }
    }
    log.lock().unwrap().push((name.clone(), from));
    let Some((bytes, manner)) = files.get(&name) else {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
        return Ok(None);
    };
    let from = from.filter(|_| *manner != Manner::WithoutRanges);
    let start = from.unwrap_or(0);
    let third = bytes.len().min(start + bytes.len() / 3 + 1);
    let first_time = log.lock().unwrap().iter().filter(|(asked, _)| *asked == name).count() == 1;
    let (end, silent) = match manner {
        Manner::Whole | Manner::WithoutRanges => (bytes.len(), false),
        Manner::InThirds => (third, false),
        Manner::SilentOnce if first_time => (third, true),
        Manner::SilentOnce => (bytes.len(), false),
        Manner::Silent => (start, true),
    };
    let (status, range) = match from {
        Some(_) if start >= bytes.len() => (
            "416 Range Not Satisfiable",
            format!("content-range: bytes */{}\r\n", bytes.len()),
        ),
        Some(_) => (
            "206 Partial Content",
            format!("content-range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len()),
        ),
        None => ("200 OK", String::new()),
    };
    let start = start.min(bytes.len());
    let length = bytes.len() - start;
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{range}connection: close\r\n\r\n"
    )?;
    stream.write_all(&bytes[start..end.max(start)])?;
    Ok(silent.then_some(stream))
}

/// A picture whose bytes do not compress to nothing.
fn picture(seed: u32) -> Vec<u8> {
    let pixels = image::RgbImage::from_fn(24, 24, |x, y| {
        let mixed = (x * 31 + y * 17 + seed).wrapping_mul(0x9e37_79b9);
        image::Rgb([mixed as u8, (mixed >> 8) as u8, (mixed >> 16) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn birds() -> Vec<(String, Vec<u8>)> {
    (0..6)
        .map(|number| (format!("birds/{}/{number}.png", number % 2), picture(number)))
        .collect()
}

fn tar_gz(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(encoder);
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // Written past the checks of the crate: these archives are hostile.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        archive.append(&header, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

fn zipped(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        archive
            .start_file(name.as_str(), zip::write::SimpleFileOptions::default())
            .unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A catalogue of one data set, `birds`, of one file.
fn catalogue(folder: &Path, file: &str, addresses: &[String], bytes: &[u8]) -> String {
    let path = path(folder, "catalogue.toml");
    let text = format!(
        "[birds]\ntitle = \"Birds\"\npaths = [\"birds\"]\n[[birds.files]]\nname = \"{file}\"\naddresses = {addresses:?}\nsize = {}\nmd5 = \"{}\"\n",
        bytes.len(),
        md5(bytes)
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn words<'a>(to: &'a str, catalogue: &'a str) -> Vec<&'a str> {
    vec!["data", "get", "birds", "--to", to, "--catalogue", catalogue, "--json"]
}

#[test]
fn a_broken_connection_costs_only_what_is_missing() {
    for (file, bytes) in [("birds.tgz", tar_gz(&birds())), ("birds.zip", zipped(&birds()))] {
        for manner in [Manner::Whole, Manner::InThirds, Manner::WithoutRanges] {
            let folder = tempfile::tempdir().unwrap();
            let to = path(folder.path(), "data");
            let server = serve(HashMap::from([(file.to_owned(), (bytes.clone(), manner))]));
            let missing = format!("{}/nowhere", server.address);
            let catalogue = catalogue(
                folder.path(),
                file,
                &[missing, format!("{}/{file}", server.address)],
                &bytes,
            );
            // What an earlier try left behind.
            std::fs::create_dir_all(&to).unwrap();
            std::fs::write(format!("{to}/{file}.part"), &bytes[..10]).unwrap();
            let found = json(&words(&to, &catalogue));
            assert_eq!(
                (&found["images"], &found["classes"], &found["downloaded"]),
                (&6.into(), &2.into(), &true.into())
            );
            let asked = server.asked.lock().unwrap().clone();
            let ranges: Vec<Option<usize>> = asked
                .iter()
                .filter(|(name, _)| name == file)
                .map(|(_, from)| *from)
                .collect();
            let third = bytes.len() / 3 + 1;
            let expected = match manner {
                Manner::InThirds => vec![Some(10), Some(10 + third), Some(10 + 2 * third)],
                _ => vec![Some(10)],
            };
            assert_eq!(ranges, expected);
            let left: Vec<String> = std::fs::read_dir(&to)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            assert_eq!(left, ["birds"]);
            for (name, bytes) in birds() {
                assert_eq!(std::fs::read(Path::new(&to).join(name)).unwrap(), bytes);
            }
            let again = json(&words(&to, &catalogue));
            assert_eq!((&again["images"], &again["downloaded"]), (&6.into(), &false.into()));
        }
    }
}

#[test]
fn a_silent_server_is_asked_again_and_given_up_in_the_end() {
    let bytes = tar_gz(&birds());
    let get = |manner: Manner| {
        let folder = tempfile::tempdir().unwrap();
        let server = serve(HashMap::from([("birds.tgz".to_owned(), (bytes.clone(), manner))]));
        let address = format!("{}/birds.tgz", server.address);
        let catalogue = catalogue(folder.path(), "birds.tgz", &[address], &bytes);
        (folder, server, catalogue)
    };
    let (folder, server, from) = get(Manner::SilentOnce);
    let to = path(folder.path(), "data");
    let found = json(&[&words(&to, &from)[..], &["--timeout-s", "1"]].concat());
    assert_eq!(found["images"], 6);
    let ranges: Vec<Option<usize>> = server.asked.lock().unwrap().iter().map(|(_, from)| *from).collect();
    assert_eq!(ranges, [None, Some(bytes.len() / 3 + 1)]);

    let (folder, server, from) = get(Manner::Silent);
    let to = path(folder.path(), "data");
    let message = refused(&[&words(&to, &from)[..], &["--timeout-s", "0.2"]].concat());
    assert!(message.contains("nothing arrived for 0.2 s after 0 bytes"), "{message}");
    assert_eq!(server.asked.lock().unwrap().len(), 4);
    let message = refused(&[&words(&to, &from)[..], &["--timeout-s", "0"]].concat());
    assert!(message.contains("--timeout-s"), "{message}");

    // One that accepts and says nothing, where a handshake of TLS is expected of it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}/birds.tgz", listener.local_addr().unwrap());
    let mute = std::thread::spawn(move || listener.incoming().flatten().take(4).collect::<Vec<TcpStream>>());
    let from = catalogue(folder.path(), "birds.tgz", &[address], &bytes);
    let message = refused(&[&words(&to, &from)[..], &["--timeout-s", "0.2"]].concat());
    assert!(message.contains("timeout: connect"), "{message}");
    assert_eq!(mute.join().unwrap().len(), 4);
}

#[test]
fn another_file_is_not_taken_for_the_published_one() {
    let folder = tempfile::tempdir().unwrap();
    let to = path(folder.path(), "data");
    let bytes = tar_gz(&birds());
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    let server = serve(HashMap::from([
        ("other".to_owned(), (other, Manner::Whole)),
        ("short".to_owned(), (bytes[..50].to_vec(), Manner::Whole)),
        ("birds.tgz".to_owned(), (bytes.clone(), Manner::Whole)),
    ]));
    let at = |name: &str| vec![format!("{}/{name}", server.address)];
    for (address, said) in [
        ("other", "not the file that was published"),
        ("short", "offers 50 bytes"),
        ("none", "404"),
    ] {
        let message = refused(&words(
            &to,
            &catalogue(folder.path(), "birds.tgz", &at(address), &bytes),
        ));
        assert!(message.contains(said) && message.contains("birds.tgz"), "{message}");
        assert!(!Path::new(&to).join("birds").exists());
    }
    // The mirror has what the address has not.
    let mended = catalogue(folder.path(), "birds.tgz", &at("none"), &bytes);
    let found = json(
        &[
            &words(&to, &mended)[..],
            &["--mirror", &server.address, "--keep-archives"],
        ]
        .concat(),
    );
    assert_eq!(found["images"], 6);
    assert_eq!(std::fs::read(format!("{to}/birds.tgz")).unwrap(), bytes);
}

#[test]
fn archives_cannot_write_beside_their_folder() {
    let hostile = [
        "birds/../../escaped.png",
        "../escaped.png",
        "/tmp/gradus-escaped.png",
        "birds/a/../../../escaped.png",
    ];
    for name in hostile {
        let mut files = birds();
        files.push((name.to_owned(), b"out".to_vec()));
        for (file, bytes) in [("birds.tgz", tar_gz(&files)), ("birds.zip", zipped(&files))] {
            let folder = tempfile::tempdir().unwrap();
            let to = path(folder.path(), "data");
            let server = serve(HashMap::from([(file.to_owned(), (bytes.clone(), Manner::Whole))]));
            let catalogue = catalogue(folder.path(), file, &[format!("{}/{file}", server.address)], &bytes);
            let message = refused(&words(&to, &catalogue));
            assert!(
                message.contains("leads out of the folder"),
                "{name} in {file}: {message}"
            );
            assert!(!folder.path().join("escaped.png").exists() && !Path::new(&to).join("birds").exists());
            assert!(!Path::new("/tmp/gradus-escaped.png").exists());
        }
    }
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(encoder);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, "birds/link", "/etc").unwrap();
    let bytes = archive.into_inner().unwrap().finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = serve(HashMap::from([(
        "birds.tgz".to_owned(),
        (bytes.clone(), Manner::Whole),
    )]));
    let catalogue = catalogue(
        folder.path(),
        "birds.tgz",
        &[format!("{}/birds.tgz", server.address)],
        &bytes,
    );
    let message = refused(&words(&path(folder.path(), "data"), &catalogue));
    assert!(message.contains("neither a file nor a folder"), "{message}");
}

#[test]
fn offline_unknown_and_unfree_sets_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let to = path(folder.path(), "data");
    let bytes = tar_gz(&birds());
    let unreachable = catalogue(
        folder.path(),
        "birds.tgz",
        &["http://127.0.0.1:9/birds.tgz".to_owned()],
        &bytes,
    );
    let message = refused(&words(&to, &unreachable));
    assert!(
        message.contains("online") && message.contains("HTTPS_PROXY"),
        "{message}"
    );
    let message = refused(&["data", "get", "cub20", "--to", &to]);
    assert!(
        message.contains("did you mean `cub200`") && message.contains("omniglot"),
        "{message}"
    );
    let message = refused(&["data", "get", "inshop", "--to", &to]);
    assert!(message.contains("agree to their terms"), "{message}");
    for (text, said) in [
        ("[birds]\ntitle = \"x\"\n", "needs files and paths"),
        ("[birds]\nname = 3\n", "no catalogue"),
        (
            "[birds]\ntitle = \"x\"\npaths = [\"../x\"]\n[[birds.files]]\nname = \"a\"\naddresses = [\"u\"]\nmd5 = \"00000000000000000000000000000000\"\n",
            "no plain name",
        ),
        (
            "[birds]\ntitle = \"x\"\npaths = [\"x\"]\n[[birds.files]]\nname = \"a\"\naddresses = [\"u\"]\nmd5 = \"0\"\n",
            "32 digits",
        ),
    ] {
        let own = path(folder.path(), "own.toml");
        std::fs::write(&own, text).unwrap();
        let message = refused(&words(&to, &own));
        assert!(message.contains(said), "{message}");
    }
}
