//! What the tests of the server share: a small index of coloured pictures, and a plain HTTP client.

#![allow(clippy::unwrap_used, missing_docs)]
// Each test program uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod browser;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gradus_core::data::Source;
use gradus_core::data::image::decode;
use gradus_index::{EngineKind, Index, Item, Settings};
use gradus_serve::{Embedder, Options, Server};
use serde_json::{Value, json};

pub const CLASSES: [(&str, [u8; 3]); 3] = [
    ("red", [220, 30, 40]),
    ("green", [30, 190, 60]),
    ("blue", [40, 60, 210]),
];
pub const MEMBERS: usize = 8;

/// The mean colour of a picture, around grey.
pub struct MeanColour;

impl Embedder for MeanColour {
    fn dimension(&self) -> usize {
        3
    }

    fn embed(&self, image: &Source) -> Result<Vec<f32>, String> {
        let pixels = decode(image).map_err(|error| error.to_string())?;
        let mut sums = [0.0_f32; 3];
        for pixel in pixels.pixels() {
            for (sum, &value) in sums.iter_mut().zip(&pixel.0) {
                *sum += f32::from(value);
            }
        }
        let count = pixels.pixels().len() as f32;
        Ok(sums.map(|sum| sum / count - 127.0 + 0.01).to_vec())
    }
}

/// A picture of a class, the brighter the larger the number.
pub fn picture(class: usize, member: usize) -> Vec<u8> {
    let colour = CLASSES[class].1.map(|value| value.saturating_add(member as u8 * 4));
    let pixels = image::RgbImage::from_pixel(24, 18, image::Rgb(colour));
    let mut bytes = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// An index of all pictures; `turned` stores other vectors for the same items.
pub fn index(folder: &Path, name: &str, turned: bool) -> Index {
    let images = folder.join("images");
    std::fs::create_dir_all(&images).unwrap();
    let mut settings = Settings::new(EngineKind::Flat, 3);
    settings.image_root = Some(images.clone());
    let builder = Index::create(&folder.join(name), settings).unwrap();
    for (class, (label, _)) in CLASSES.iter().enumerate() {
        for member in 0..MEMBERS {
            let file = format!("{label}/{member}.png");
            std::fs::create_dir_all(images.join(label)).unwrap();
            std::fs::write(images.join(&file), picture(class, member)).unwrap();
            let mut item = Item::new(file.clone());
            item.image = Some(file);
            item.class = Some((*label).to_owned());
            item.payload.insert("light".into(), json!(member as f64 * 4.0));
            let source = Source::File(images.join(&item.id));
            let mut vector = MeanColour.embed(&source).unwrap();
            if turned {
                vector.rotate_left(1);
                vector[0] += (member * 37 % 11) as f32 * 4.0;
            }
            builder.add(&[item], &vector).unwrap();
        }
    }
    builder.finish().unwrap()
}

/// A server that runs until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    pub folder: tempfile::TempDir,
}

impl Running {
    pub fn new(options: Options) -> Self {
        Self::with(options, Some(Box::new(MeanColour)), false)
    }

    pub fn with(options: Options, embedder: Option<Box<dyn Embedder>>, compared: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut indexes = vec![("method".to_owned(), index(folder.path(), "index", false))];
        if compared {
            indexes.push(("baseline".to_owned(), index(folder.path(), "other", true)));
        }
        let server = Server::bind("127.0.0.1", 0, indexes, embedder, options).unwrap();
        let address = server.address().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || server.run(move || stopped.load(Ordering::Relaxed)).unwrap());
        Self {
            address,
            stop,
            thread: Some(thread),
            folder,
        }
    }

    /// Asks the server to end, without waiting.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the end.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses early may close before it has read everything.
        let _ = stream.write_all(body);
        Answer::read(&mut stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], &[])
    }

    pub fn search(&self, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.ask("POST", "/search", &headers, body.to_string().as_bytes())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        self.join();
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads until the server closes.
    pub fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                // Closed with unread bytes of ours: what came before is the answer.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}"),
            }
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Self {
                status: 0,
                head: String::new(),
                body: bytes,
            };
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let mut body = bytes[end + 4..].to_vec();
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            body = unchunked(&body);
        }
        Self { status, head, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The message of a refusal of this status.
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()["error"].as_str().unwrap().to_owned()
    }

    pub fn ids(&self) -> Vec<String> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        let hits = self.json();
        let hits = hits["hits"].as_array().unwrap();
        hits.iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
    }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            break;
        }
        whole.extend_from_slice(&bytes[end + 2..end + 2 + length]);
        bytes = &bytes[end + 4 + length..];
    }
    whole
}
