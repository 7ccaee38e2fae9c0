//! How many requests wait for work, and how long: beyond the queue 429 is answered at once, beyond the time 503.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::Refusal;
use crate::shared::Shared;

/// Places to wait in, and places to work in.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

impl Queue {
    pub(crate) fn new(queue: usize, workers: usize) -> Self {
        let workers = workers.max(1);
        Self {
            waiting: Arc::new(Semaphore::new(queue + workers)),
            working: Arc::new(Semaphore::new(workers)),
        }
    }

    /// A place in the queue.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| {
            Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many searches are waiting: try again in a second",
            )
        })
    }
}

/// Does work on a thread of its own once it is its turn. The place is given back when the work has ended, even if nobody waits for it
/// any more, so that no more than the allowed number ever run.
pub(crate) async fn work<T: Send + 'static>(
    queue: &Queue,
    shared: &Shared,
    place: OwnedSemaphorePermit,
    job: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let late = || {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the search did not begin or end in time: the server is busy, try again",
        )
    };
    let run = async {
        let turn = Arc::clone(&queue.working)
            .acquire_owned()
            .await
            .map_err(|_| Refusal::internal())?;
        let done = tokio::task::spawn_blocking(move || {
            let _kept = (place, turn);
            job()
        });
        done.await.map_err(|_| {
            shared.metrics.failures.fetch_add(1, Ordering::Relaxed);
            Refusal::internal()
        })?
    };
    tokio::time::timeout(shared.options.timeout, run)
        .await
        .map_err(|_| late())?
}
