//! Limits, timeouts, the token.

use std::time::Duration;

/// How a server treats requests.
#[derive(Clone)]
pub struct Options {
    /// Bearer token that every request for data must carry; default none.
    pub token: Option<String>,
    /// Largest body in bytes; default 16 MiB.
    pub largest_body: usize,
    /// Most pixels of an image; default 50 million.
    pub most_pixels: u64,
    /// Requests that may wait for a search, beyond which 429 is answered; default 64.
    pub queue: usize,
    /// Searches at a time; default 2.
    pub workers: usize,
    /// Open connections; more wait to be accepted. Default 512.
    pub connections: usize,
    /// Longest time for the headers, for the body, and for the answer, each; default 30 seconds.
    pub timeout: Duration,
    /// Rows of an index that are shown on the map, spread evenly; default 20,000.
    pub most_points: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            largest_body: 16 << 20,
            most_pixels: 50_000_000,
            queue: 64,
            workers: 2,
            connections: 512,
            timeout: Duration::from_secs(30),
            most_points: 20_000,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Options")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("largest_body", &self.largest_body)
            .field("most_pixels", &self.most_pixels)
            .field("queue", &self.queue)
            .field("workers", &self.workers)
            .field("connections", &self.connections)
            .field("timeout", &self.timeout)
            .field("most_points", &self.most_points)
            .finish()
    }
}
