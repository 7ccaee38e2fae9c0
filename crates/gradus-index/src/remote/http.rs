//! Requests, repeated where the reason of a failure may pass.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::StatusCode;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Error, http::Response};

use super::Address;
use crate::IndexError;

/// Tries of a request.
const TRIES: u32 = 6;
/// Wait after the first failure; doubled after each.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest an answer may take: large batches are stored before they are answered.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The longest an answer may be.
const ANSWER_LIMIT: u64 = 256 << 20;

/// Talks to one server.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    url: String,
    api_key: Option<String>,
}

#[derive(Clone, Copy)]
enum Method {
    Get,
    Put,
    Post,
}

impl Client {
    pub(super) fn new(address: &Address) -> Result<Self, IndexError> {
        let url = address.url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(IndexError::Remote(format!(
                "{} is no address of a server: expected one such as http://localhost:6333",
                address.url
            )));
        }
        let name = &address.collection;
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        if name.is_empty() || !name.chars().all(allowed) || name.starts_with('.') {
            return Err(IndexError::Remote(format!(
                "\"{name}\" cannot name a collection: use letters, digits, _, - and ."
            )));
        }
        if address
            .api_key
            .as_ref()
            .is_some_and(|key| !key.bytes().all(|byte| (0x21..0x7f).contains(&byte)))
        {
            return Err(IndexError::Remote(
                "the API key holds spaces or letters that no header can carry: check the variable".into(),
            ));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(TIMEOUT))
            .timeout_connect(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        Ok(Self {
            agent: config.into(),
            url,
            api_key: address.api_key.clone(),
        })
    }

    /// None where there is no such thing.
    pub(super) fn get(&self, path: &str) -> Result<Option<Value>, IndexError> {
        self.send(Method::Get, path, None)
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Value, IndexError> {
        self.needed(path, self.send(Method::Put, path, Some(body))?)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, IndexError> {
        self.needed(path, self.send(Method::Post, path, Some(body))?)
    }

    fn needed(&self, path: &str, answer: Option<Value>) -> Result<Value, IndexError> {
        answer.ok_or_else(|| {
            IndexError::Remote(format!(
                "{}{path} is not there (404): was the collection deleted?",
                self.url
            ))
        })
    }

    fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Option<Value>, IndexError> {
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let mut wait = FIRST_WAIT;
        for number in 1..=TRIES {
            let problem = match self.once(method, path, &bytes) {
                Ok(mut response) => {
                    let status = response.status();
                    if status == StatusCode::NOT_FOUND {
                        return Ok(None);
                    }
                    if status.is_success() {
                        match read(&mut response) {
                            Ok(text) => {
                                return serde_json::from_str(&text).map(Some).map_err(|error| {
                                    IndexError::Remote(format!(
                                        "{}{path} answered what is no JSON ({error}): is this a Qdrant server?",
                                        self.url
                                    ))
                                });
                            }
                            Err(error) => error.to_string(),
                        }
                    } else {
                        let said = said(&read(&mut response).unwrap_or_default());
                        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                            return Err(IndexError::Remote(format!(
                                "{} refuses the request ({status}{said}): name the environment variable that holds the API key with --api-key-env",
                                self.url
                            )));
                        }
                        if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
                            return Err(IndexError::Remote(format!(
                                "{}{path} refuses the request: {status}{said}",
                                self.url
                            )));
                        }
                        format!("{status}{said}")
                    }
                }
                Err(error) => error.to_string(),
            };
            if number == TRIES {
                return Err(IndexError::Remote(format!(
                    "{}{path} failed {TRIES} times, at last with: {problem}; what was stored before is kept, and the same command goes on",
                    self.url
                )));
            }
            std::thread::sleep(wait);
            wait *= 2;
        }
        Ok(None)
    }

    fn once(&self, method: Method, path: &str, body: &str) -> Result<Response<Body>, Error> {
        let url = format!("{}{path}", self.url);
        let key = self.api_key.as_deref();
        match method {
            Method::Get => {
                let mut request = self.agent.get(url);
                if let Some(key) = key {
                    request = request.header("api-key", key);
                }
                request.call()
            }
            Method::Put | Method::Post => {
                let mut request = match method {
                    Method::Put => self.agent.put(url),
                    _ => self.agent.post(url),
                };
                if let Some(key) = key {
                    request = request.header("api-key", key);
                }
                request.content_type("application/json").send(body)
            }
        }
    }
}

fn read(response: &mut Response<Body>) -> Result<String, Error> {
    response.body_mut().with_config().limit(ANSWER_LIMIT).read_to_string()
}

/// What Qdrant says went wrong.
fn said(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    value["status"]["error"]
        .as_str()
        .map_or_else(String::new, |error| format!(": {error}"))
}
