//! What a monitoring system may know (text format of Prometheus).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the stretches of time, in seconds.
const STRETCHES: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    times: Mutex<([u64; STRETCHES.len()], u64, f64)>,
    /// Jobs that ended by a defect.
    pub(crate) failures: AtomicU64,
    /// Connections that are open.
    pub(crate) connections: AtomicU64,
}

impl Metrics {
    /// Notes an answer.
    pub(crate) fn answered(&self, route: &'static str, status: u16, taken: Duration) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry((route, status)).or_default() += 1;
        drop(answers);
        if route == "/search" {
            let seconds = taken.as_secs_f64();
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            for (count, end) in times.0.iter_mut().zip(STRETCHES) {
                *count += u64::from(seconds <= end);
            }
            times.1 += 1;
            times.2 += seconds;
        }
    }

    /// Everything as text.
    pub(crate) fn text(&self, items: usize) -> String {
        // Writing to a string cannot fail.
        let mut text = String::new();
        let _ = writeln!(
            text,
            "# HELP gradus_requests_total Requests answered.\n# TYPE gradus_requests_total counter"
        );
        for ((route, status), count) in &*self.answers.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(
                text,
                "gradus_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}"
            );
        }
        let (stretches, count, sum) = *self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(
            text,
            "# HELP gradus_search_seconds Time from request to answer.\n# TYPE gradus_search_seconds histogram"
        );
        for (below, end) in stretches.iter().zip(STRETCHES) {
            let _ = writeln!(text, "gradus_search_seconds_bucket{{le=\"{end}\"}} {below}");
        }
        let _ = writeln!(
            text,
            "gradus_search_seconds_bucket{{le=\"+Inf\"}} {count}\ngradus_search_seconds_sum {sum}\ngradus_search_seconds_count {count}"
        );
        for (name, kind, about, value) in [
            ("gradus_items", "gauge", "Items of the index.", items as u64),
            (
                "gradus_connections",
                "gauge",
                "Open connections.",
                self.connections.load(Ordering::Relaxed),
            ),
            (
                "gradus_failures_total",
                "counter",
                "Searches that ended by a defect.",
                self.failures.load(Ordering::Relaxed),
            ),
        ] {
            let _ = writeln!(text, "# HELP {name} {about}\n# TYPE {name} {kind}\n{name} {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let metrics = Metrics::default();
        metrics.answered("/search", 200, Duration::from_millis(2));
        metrics.answered("/search", 429, Duration::from_millis(300));
        metrics.answered("/health", 200, Duration::from_secs(99));
        let text = metrics.text(7);
        for line in [
            "gradus_requests_total{route=\"/search\",status=\"429\"} 1",
            "gradus_search_seconds_bucket{le=\"0.001\"} 0",
            "gradus_search_seconds_bucket{le=\"0.0025\"} 1",
            "gradus_search_seconds_bucket{le=\"1\"} 2",
            "gradus_search_seconds_count 2",
            "gradus_items 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
