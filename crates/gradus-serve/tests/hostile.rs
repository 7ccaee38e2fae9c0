//! Requests that want to do harm.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{Answer, MeanColour, Running, picture};
use gradus_core::data::Source;
use gradus_serve::{Embedder, Options};
use serde_json::json;

const PNG: [(&str, &str); 1] = [("Content-Type", "image/png")];

fn quick() -> Options {
    Options {
        timeout: Duration::from_millis(700),
        largest_body: 1 << 20,
        most_pixels: 1_000_000,
        ..Options::default()
    }
}

/// The server still does what it is for.
fn assert_alive(server: &Running) {
    assert_eq!(
        server.search(&json!({"vector": [1.0, 0.0, 0.0], "k": 1})).ids().len(),
        1
    );
}

/// A PNG file whose header announces a size, with nothing behind it.
fn announced(width: u32, height: u32) -> Vec<u8> {
    let mut pixels = picture(0, 0);
    pixels[16..20].copy_from_slice(&width.to_be_bytes());
    pixels[20..24].copy_from_slice(&height.to_be_bytes());
    // The checksum of the header must fit, or the decoder stops there.
    let mut remainder = u32::MAX;
    for &byte in &pixels[12..29] {
        remainder ^= u32::from(byte);
        for _ in 0..8 {
            remainder = (remainder >> 1) ^ if remainder & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    pixels[29..33].copy_from_slice(&(!remainder).to_be_bytes());
    pixels
}

#[test]
fn bodies_that_are_too_large_are_not_read() {
    let server = Running::new(quick());
    let huge = vec![0_u8; (1 << 20) + 1];
    assert!(
        server
            .ask("POST", "/search", &PNG, &huge)
            .refused(413)
            .contains("1 MiB")
    );
    // An announced terabyte.
    let mut stream = server.connect();
    stream
        .write_all(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1099511627776\r\n\r\nabc")
        .unwrap();
    let begin = Instant::now();
    let mut byte = [0];
    let _ = std::io::Read::read(&mut stream, &mut byte);
    assert!(begin.elapsed() < Duration::from_secs(5));
    // Without an announced length.
    let mut stream = server.connect();
    stream
        .write_all(b"POST /search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    for _ in 0..40 {
        if stream.write_all(b"10000\r\n").is_err()
            || stream.write_all(&[0; 0x10000]).is_err()
            || stream.write_all(b"\r\n").is_err()
        {
            break;
        }
    }
    let answer = Answer::read(&mut stream);
    assert!(answer.status == 413 || answer.status == 0, "{answer:?}");
    assert_alive(&server);
}

#[test]
fn bombs_and_damaged_images_are_refused_with_words() {
    let server = Running::new(quick());
    let begin = Instant::now();
    for (width, height) in [(60_000, 60_000), (u32::MAX >> 1, u32::MAX >> 1), (1_001, 1_000), (0, 5)] {
        let refused = server.ask("POST", "/search", &PNG, &announced(width, height));
        assert!(refused.refused(400).contains("the image"), "{width} x {height}");
    }
    assert!(begin.elapsed() < Duration::from_secs(4));
    let whole = picture(0, 0);
    for cut in [1, 8, 20, 40, whole.len() - 15] {
        assert_eq!(
            server.ask("POST", "/search", &PNG, &whole[..cut]).status,
            400,
            "{cut} bytes"
        );
    }
    assert_eq!(server.ask("POST", "/search", &PNG, b"").status, 400);
    assert_eq!(server.ask("POST", "/search", &PNG, b"#!/bin/sh\nexit 0\n").status, 400);
    assert_eq!(
        server
            .ask("POST", "/search", &PNG, b"<svg xmlns='http://www.w3.org/2000/svg'/>")
            .status,
        400
    );
    assert_alive(&server);
}

#[test]
fn wrong_types_and_nonsense_are_refused_with_words() {
    let server = Running::new(quick());
    let kind = [("Content-Type", "text/html")];
    assert!(
        server
            .ask("POST", "/search", &kind, b"x")
            .refused(415)
            .contains("text/html")
    );
    for body in [
        "",
        "{",
        "null",
        "[]",
        "{\"k\": 3}",
        "{\"vector\": \"x\"}",
        "{\"vector\": [1, 2]}",
        "{\"vector\": [0, 0, 0]}",
        "{\"vector\": [1, 0, 0], \"k\": 0}",
        "{\"vector\": [1, 0, 0], \"k\": 100000}",
        "{\"vector\": [1, 0, 0], \"k\": -1}",
        "{\"vector\": [1, 0, 0], \"colour\": 1}",
        "{\"vector\": [1, 0, 0], \"filter\": \"shape=x\"}",
        "{\"vector\": [1, 0, 0], \"filter\": \"light<x\"}",
        "{\"vector\": [1, 0, 0], \"index\": 7}",
        "{\"vector\": [1e39, 0, 0]}",
    ] {
        let kind = [("Content-Type", "application/json")];
        let message = server.ask("POST", "/search", &kind, body.as_bytes()).refused(400);
        assert!(message.len() > 10 && !message.contains("panicked"), "{body}: {message}");
    }
    let deep = format!("{{\"vector\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(
        server
            .ask(
                "POST",
                "/search",
                &[("Content-Type", "application/json")],
                deep.as_bytes()
            )
            .status,
        400
    );
    for (kind, body) in [
        ("multipart/form-data", "x"),
        ("multipart/form-data; boundary=E", "x"),
        ("multipart/form-data; boundary=E", "--E\r\n\r\n"),
        ("multipart/form-data; boundary=E", "--E--\r\n"),
    ] {
        assert_eq!(
            server
                .ask("POST", "/search", &[("Content-Type", kind)], body.as_bytes())
                .status,
            400,
            "{kind} {body}"
        );
    }
    assert_eq!(server.get("/search?k=x").status, 405);
    assert_eq!(server.ask("POST", "/search?k=x", &PNG, &picture(0, 0)).status, 400);
    for garbage in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /%ff%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ] {
        let mut stream = server.connect();
        stream.write_all(garbage.as_bytes()).unwrap();
        let answer = Answer::read(&mut stream);
        assert!(
            answer.status == 0 || (400..500).contains(&answer.status),
            "{garbage:?} {answer:?}"
        );
    }
    let mut stream = server.connect();
    let _ = stream.write_all(format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(1 << 20)).as_bytes());
    let answer = Answer::read(&mut stream);
    assert!(answer.status == 0 || answer.status == 431, "{answer:?}");
    assert_alive(&server);
}

#[test]
fn no_path_leads_out_of_the_image_root() {
    let server = Running::new(quick());
    std::fs::write(server.folder.path().join("secret.png"), picture(2, 0)).unwrap();
    std::fs::write(server.folder.path().join("images/notes.txt"), b"not a picture").unwrap();
    #[cfg(unix)]
    {
        let link = server.folder.path().join("images/link.png");
        std::os::unix::fs::symlink(server.folder.path().join("secret.png"), link).unwrap();
        std::os::unix::fs::symlink("/", server.folder.path().join("images/all")).unwrap();
    }
    for path in [
        "/images/../secret.png",
        "/images/..%2fsecret.png",
        "/images/%2e%2e/secret.png",
        "/images/%2e%2e%2fsecret.png",
        "/images/red/../../secret.png",
        "/images/red%2f..%2f..%2fsecret.png",
        "/images/..\\secret.png",
        "/images//etc/passwd",
        "/images/%2fetc%2fpasswd",
        "/images/link.png",
        "/images/all/etc/passwd",
        "/images/red",
        "/images/",
        "/images/.",
        "/images/notes.txt",
        "/images/red%002.png",
        "/index/index.toml",
        "/images/..%2findex%2findex.toml",
        "/assets/..%2f..%2fCargo.toml",
        "/thumbnails/..%2f..%2fsecret.png",
        "/items/..%2f..%2fsecret.png",
    ] {
        let answer = server.get(path);
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
        assert!(
            !answer.body.starts_with(b"\x89PNG") && !answer.body.windows(5).any(|window| window == b"root:"),
            "{path}"
        );
    }
    assert_eq!(server.get("/images/red/2.png").status, 200);
}

#[test]
fn slow_clients_are_let_go() {
    let server = Running::new(quick());
    // Headers that never end, one byte at a time.
    let mut stream = server.connect();
    let begin = Instant::now();
    let mut closed = false;
    for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
        .iter()
        .chain([b'x'; 60].iter())
    {
        if stream.write_all(&[*byte]).is_err() {
            closed = true;
            break;
        }
        std::thread::sleep(Duration::from_millis(40));
        if begin.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    let answer = Answer::read(&mut stream);
    assert!(closed || answer.status == 408 || answer.status == 0, "{answer:?}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    // A body that never ends.
    let mut stream = server.connect();
    let begin = Instant::now();
    stream
        .write_all(b"POST /search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc")
        .unwrap();
    assert!(Answer::read(&mut stream).refused(408).contains("0.7 s"));
    assert!(begin.elapsed() < Duration::from_secs(3));
    // Many that say nothing do not keep others out.
    let silent: Vec<_> = (0..60).map(|_| server.connect()).collect();
    assert_alive(&server);
    drop(silent);
}

#[test]
fn other_sites_cannot_reach_it_through_a_browser() {
    let server = Running::new(quick());
    for host in ["evil.example", "evil.example:8080", "localhost.evil.example"] {
        let answer = server.ask("GET", "/items/red/2.png", &[("Host", host)], &[]);
        assert!(answer.refused(421).contains("--host"), "{host}");
    }
    assert_eq!(
        server
            .ask("GET", "/items/red/2.png", &[("Host", "127.0.0.1:1")], &[])
            .status,
        200
    );
    assert!(
        !server
            .get("/items/red/2.png")
            .head
            .to_ascii_lowercase()
            .contains("access-control")
    );
}

/// An embedder that waits to be told.
struct Waiting(Mutex<Receiver<()>>);

impl Embedder for Waiting {
    fn dimension(&self) -> usize {
        3
    }

    fn embed(&self, image: &Source) -> Result<Vec<f32>, String> {
        self.0.lock().unwrap().recv().map_err(|error| error.to_string())?;
        MeanColour.embed(image)
    }
}

#[test]
fn beyond_the_queue_429_is_answered_at_once() {
    let (go, waiting) = channel();
    let options = Options {
        queue: 1,
        workers: 1,
        ..Options::default()
    };
    let server = Running::with(options, Some(Box::new(Waiting(Mutex::new(waiting)))), false);
    std::thread::scope(|scope| {
        let ask = || server.ask("POST", "/search?k=1", &PNG, &picture(0, 1));
        let first = scope.spawn(ask);
        let second = scope.spawn(ask);
        // One works, one waits.
        std::thread::sleep(Duration::from_millis(500));
        let begin = Instant::now();
        for _ in 0..5 {
            let refused = ask();
            assert!(refused.head.to_ascii_lowercase().contains("retry-after: 1"));
            assert!(refused.refused(429).contains("try again"));
        }
        assert!(begin.elapsed() < Duration::from_secs(2));
        // What does not search is answered meanwhile.
        assert_eq!(server.get("/health").status, 200);
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(first.join().unwrap().ids(), ["red/1.png"]);
        assert_eq!(second.join().unwrap().ids(), ["red/1.png"]);
    });
    go.send(()).unwrap();
    assert_eq!(server.ask("POST", "/search?k=1", &PNG, &picture(0, 1)).status, 200);
}

#[test]
fn a_search_that_takes_too_long_and_a_model_that_breaks_are_answered() {
    struct Breaking;
    impl Embedder for Breaking {
        fn dimension(&self) -> usize {
            3
        }

        fn embed(&self, _image: &Source) -> Result<Vec<f32>, String> {
            panic!("a defect of the model")
        }
    }
    let server = Running::with(quick(), Some(Box::new(Breaking)), false);
    assert!(
        server
            .ask("POST", "/search", &PNG, &picture(0, 1))
            .refused(500)
            .contains("log")
    );
    assert_alive(&server);
    let (_go, waiting) = channel();
    let server = Running::with(quick(), Some(Box::new(Waiting(Mutex::new(waiting)))), false);
    let begin = Instant::now();
    assert!(
        server
            .ask("POST", "/search", &PNG, &picture(0, 1))
            .refused(503)
            .contains("in time")
    );
    assert!(begin.elapsed() < Duration::from_secs(3));
    drop(_go);
}
