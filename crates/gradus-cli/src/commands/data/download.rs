//! A file over HTTP: goes on where it stopped, and is there only when it is whole and what it should be.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use md5::{Digest, Md5};
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{RootCerts, TlsConfig};

use crate::failure::Failure;
use crate::output;

/// Breaks in a row, without a byte between them, after which an address is given up.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const PIECE: usize = 1 << 16;

/// Downloads files; proxies are those of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).
pub(super) struct Downloader {
    agent: Agent,
    /// Silence after which a connection counts as broken.
    patience: Duration,
}

/// What is wanted.
pub(super) struct Wanted<'a> {
    pub(super) addresses: Vec<String>,
    pub(super) size: Option<u64>,
    pub(super) md5: &'a str,
    pub(super) to: PathBuf,
}

/// Why an address did not give the file.
enum Problem {
    /// Asking again may, or another address.
    Address(String),
    /// Another address may.
    Refused(String),
    /// Nothing will: the disk is full, say.
    Here(Failure),
}

impl Downloader {
    pub(super) fn new(patience: Duration) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            // Handshakes of TLS and of proxies are part of it: either may fall silent, too.
            .timeout_connect(Some(patience.min(Duration::from_secs(20))))
            .timeout_recv_response(Some(patience))
            .http_status_as_error(false)
            .user_agent(concat!("gradus/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
            patience,
        }
    }

    /// Leaves the file at its place; returns whether it was downloaded (and not there already).
    pub(super) fn get(&self, wanted: &Wanted<'_>) -> Result<bool, Failure> {
        if wanted.to.exists() {
            let found = digest(&wanted.to)?;
            if found == wanted.md5 {
                return Ok(false);
            }
            return Err(Failure::new(format!(
                "{} is there already, but is another file (MD5 {found}, expected {}): move it away",
                wanted.to.display(),
                wanted.md5
            )));
        }
        let mut problems = Vec::new();
        for address in &wanted.addresses {
            match self.from(address, wanted) {
                Ok(()) => return Ok(true),
                Err(Problem::Here(failure)) => return Err(failure),
                Err(Problem::Address(problem) | Problem::Refused(problem)) => {
                    problems.push(format!("{address}: {problem}"))
                }
            }
        }
        Err(Failure::new(format!(
            "{} could not be downloaded: {}. What arrived is kept, and the same command goes on; is this machine online, and is a proxy named by \
             HTTPS_PROXY or HTTP_PROXY where one is needed?",
            name(&wanted.to),
            problems.join("; ")
        )))
    }

    fn from(&self, address: &str, wanted: &Wanted<'_>) -> Result<(), Problem> {
        let part = part_of(&wanted.to);
        let bar = ProgressBar::with_draw_target(wanted.size, ProgressDrawTarget::stderr());
        let template = "{prefix} {bar:28} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(name(&wanted.to));
        let mut wait = FIRST_WAIT;
        let mut tries = 0;
        loop {
            let before = length(&part);
            match self.go_on(address, &part, wanted.size, &bar) {
                Ok(()) => break,
                Err(problem @ (Problem::Here(_) | Problem::Refused(_))) => return Err(problem),
                Err(Problem::Address(problem)) => {
                    if length(&part) > before {
                        (tries, wait) = (0, FIRST_WAIT);
                    }
                    tries += 1;
                    if tries == TRIES {
                        return Err(Problem::Address(problem));
                    }
                    std::thread::sleep(wait);
                    wait *= 2;
                }
            }
        }
        bar.finish_and_clear();
        let found = digest(&part).map_err(Problem::Here)?;
        if found != wanted.md5 {
            // Going on with it would never end well.
            let _ = std::fs::remove_file(&part);
            return Err(Problem::Address(format!(
                "it is not the file that was published (MD5 {found}, expected {}), so what arrived was removed",
                wanted.md5
            )));
        }
        std::fs::rename(&part, &wanted.to).map_err(|error| Problem::Here(here(&wanted.to, &error)))
    }

    /// One request for what is missing.
    fn go_on(&self, address: &str, part: &Path, size: Option<u64>, bar: &ProgressBar) -> Result<(), Problem> {
        let mut have = length(part);
        if size.is_some_and(|size| have == size) {
            return Ok(());
        }
        let mut request = self.agent.get(address);
        if have > 0 {
            request = request.header("range", format!("bytes={have}-"));
        }
        let response = request.call().map_err(|error| Problem::Address(error.to_string()))?;
        match response.status() {
            StatusCode::OK => have = 0,
            StatusCode::PARTIAL_CONTENT => {
                let range = response
                    .headers()
                    .get("content-range")
                    .and_then(|value| value.to_str().ok());
                if !range.is_some_and(|range| range.starts_with(&format!("bytes {have}-"))) {
                    let _ = std::fs::remove_file(part);
                    return Err(Problem::Address(
                        "the server sent another part than was asked for".into(),
                    ));
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                // Either all is there, which the checksum tells, or the part belongs to another file.
                let total = response
                    .headers()
                    .get("content-range")
                    .and_then(|value| value.to_str().ok());
                if total.is_some_and(|range| range == format!("bytes */{have}")) {
                    return Ok(());
                }
                let _ = std::fs::remove_file(part);
                return Err(Problem::Address("what was there of it is longer than the file".into()));
            }
            status if status.is_client_error() => return Err(Problem::Refused(format!("the server answers {status}"))),
            status => return Err(Problem::Address(format!("the server answers {status}"))),
        }
        let announced = response
            .headers()
            .get("content-length")
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let total = announced.map(|rest| have + rest);
        if let (Some(size), Some(total)) = (size, total)
            && size != total
        {
            return Err(Problem::Address(format!(
                "the server offers {total} bytes, expected {size}"
            )));
        }
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(have);
        let disk = |error: std::io::Error| Problem::Here(here(part, &error));
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(part)
            .map_err(disk)?;
        file.set_len(have).map_err(disk)?;
        file.seek(SeekFrom::Start(have)).map_err(disk)?;
        let pieces = read_aside(response.into_body().into_with_config().limit(u64::MAX).reader());
        loop {
            let piece = match pieces.recv_timeout(self.patience) {
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => return Err(Problem::Address(error.to_string())),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Problem::Address(format!(
                        "nothing arrived for {} s after {have} bytes",
                        self.patience.as_secs_f64()
                    )));
                }
            };
            file.write_all(&piece).map_err(disk)?;
            have += piece.len() as u64;
            bar.set_position(have);
            if size.is_some_and(|size| have > size) {
                drop(file);
                let _ = std::fs::remove_file(part);
                return Err(Problem::Address(format!(
                    "the server sends more than the expected {} bytes",
                    size.unwrap_or(0)
                )));
            }
        }
        file.sync_all().map_err(disk)?;
        match total.or(size) {
            Some(total) if have < total => Err(Problem::Address(format!(
                "the connection ended after {have} of {total} bytes"
            ))),
            _ => Ok(()),
        }
    }
}

/// The pieces of a body, read by a thread of its own: a read that waits for a silent server cannot be given up, the thread can. It
/// ends with the body, with an error, or when nobody listens any more.
fn read_aside(mut body: impl Read + Send + 'static) -> Receiver<std::io::Result<Vec<u8>>> {
    let (send, pieces) = sync_channel(16);
    std::thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let read = match body.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => {
                    piece.truncate(read);
                    Ok(piece)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let last = read.is_err();
            if send.send(read).is_err() || last {
                return;
            }
        }
    });
    pieces
}

/// Where what has arrived lies.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn here(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!(
        "cannot write {}: {error}; what arrived is kept, and the same command goes on",
        path.display()
    ))
}

fn digest(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let mut file = File::open(path).map_err(unreadable)?;
    if length(path) > 64 << 20 {
        output::note(&format!("checking {}", name(path)));
    }
    let (mut digest, mut piece) = (Md5::new(), vec![0; PIECE]);
    loop {
        let read = file.read(&mut piece).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        digest.update(&piece[..read]);
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
