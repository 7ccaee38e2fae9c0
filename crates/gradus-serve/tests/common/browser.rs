//! A headless Chromium, driven through chromedriver's own protocol (W3C WebDriver): JSON over HTTP, no library needed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How an element is named in answers (section 6 of the standard).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one; `None`, with a loud message, where there is none and CI does not ask for it.
    pub fn start(dark: bool) -> Option<Self> {
        let missing = ["chromedriver", "chromium"].into_iter().find(|program| {
            Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .status()
                .is_err()
        });
        if let Some(program) = missing {
            assert!(
                std::env::var_os("CI").is_none(),
                "{program} is missing and CI is set: install chromium and chromium-driver"
            );
            #[allow(clippy::print_stderr)] // Nobody would notice otherwise.
            {
                eprintln!(
                    "\n*** SKIPPED: {program} is missing, the explorer was NOT tested in a browser (apt-get install chromium chromium-driver) ***\n"
                );
            }
            return None;
        }
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // "Starting ChromeDriver … on port 0", then "ChromeDriver was started successfully on port 12345."
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let port = line.split("on port ").nth(1)?.trim_end_matches('.').parse().ok()?;
                (port != 0).then_some(port)
            })
            .expect("chromedriver says where it listens");
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--window-size=1500,900".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        if dark {
            arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            _profile: profile,
        };
        let wanted = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}}});
        let session = browser.ask("POST", "/session", &wanted);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        Some(browser)
    }

    /// The driver may name its port before it listens.
    fn connect(&self) -> TcpStream {
        for _ in 0..200 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) {
                return stream;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("chromedriver does not listen on port {}", self.port);
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let body = if method == "POST" {
            body.to_string()
        } else {
            String::new()
        };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        let mut buffer = [0; 65536];
        // Chromedriver keeps connections open: the announced length says where the answer ends.
        loop {
            let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
                let length = head
                    .split("content-length:")
                    .nth(1)
                    .unwrap()
                    .lines()
                    .next()
                    .unwrap()
                    .trim()
                    .parse::<usize>()
                    .unwrap();
                if answer.len() >= end + 4 + length {
                    let value: Value = serde_json::from_slice(&answer[end + 4..end + 4 + length]).unwrap();
                    assert!(value["value"]["error"].is_null(), "{path}: {value}");
                    return value["value"].clone();
                }
            }
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "chromedriver closed early");
            answer.extend_from_slice(&buffer[..count]);
        }
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}{path}", self.session), body)
    }

    pub fn open(&self, address: &str) {
        self.command("/url", &json!({"url": address}));
    }

    /// Runs a script; its `return` is the value.
    pub fn script(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until a script returns something true, and returns it.
    pub fn wait(&self, script: &str) -> Value {
        let begin = Instant::now();
        loop {
            let value = self.script(script);
            if !(value.is_null() || value == false || value == 0 || value == "") {
                return value;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "waited in vain for: {script}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Moves the pointer to places of the window, with the button down on the way if asked.
    pub fn drag(&self, places: &[(f64, f64)], pressed: bool) {
        let mut actions = Vec::new();
        for (number, (x, y)) in places.iter().enumerate() {
            actions.push(json!({"type": "pointerMove", "duration": 20, "x": x.round(), "y": y.round()}));
            if number == 0 && pressed {
                actions.push(json!({"type": "pointerDown", "button": 0}));
            }
        }
        if pressed {
            actions.push(json!({"type": "pointerUp", "button": 0}));
        }
        self.command(
            "/actions",
            &json!({"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]}),
        );
    }

    pub fn hover(&self, x: f64, y: f64) {
        self.drag(&[(x, y)], false);
    }

    pub fn click(&self, x: f64, y: f64) {
        self.drag(&[(x, y)], true);
    }

    pub fn keys(&self, keys: &[&str]) {
        let actions: Vec<Value> = keys
            .iter()
            .flat_map(|key| {
                [
                    json!({"type": "keyDown", "value": key}),
                    json!({"type": "keyUp", "value": key}),
                ]
            })
            .collect();
        self.command(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}),
        );
    }

    /// Chooses a file in the file field a selector finds.
    pub fn choose(&self, selector: &str, file: &Path) {
        let found = self.command("/element", &json!({"using": "css selector", "value": selector}));
        let element = found[ELEMENT].as_str().unwrap();
        self.command(
            &format!("/element/{element}/value"),
            &json!({"text": file.to_str().unwrap()}),
        );
    }

    /// What the page wrote to its console as errors.
    pub fn errors(&self) -> Vec<String> {
        let log = self.command("/se/log", &json!({"type": "browser"}));
        log.as_array()
            .into_iter()
            .flatten()
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Saves what is seen as a PNG file where GRADUS_SCREENSHOTS names a folder.
    pub fn screenshot(&self, name: &str) {
        use base64::Engine;
        let encoded = self.ask("GET", &format!("/session/{}/screenshot", self.session), &Value::Null);
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(encoded.as_str().unwrap())
            .unwrap();
        assert!(bytes.starts_with(b"\x89PNG"));
        if let Some(folder) = std::env::var_os("GRADUS_SCREENSHOTS") {
            std::fs::write(Path::new(&folder).join(format!("{name}.png")), bytes).unwrap();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
