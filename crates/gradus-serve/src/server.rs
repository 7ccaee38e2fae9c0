//! Connections: limits, timeouts, the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gradus_index::Index;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::embedder::Embedder;
use crate::explorer::Explorer;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::pictures::Thumbnails;
use crate::queue::Queue;
use crate::routes::router;
use crate::shared::{Inside, Served, Shared};

/// Memory for thumbnails that were made.
const THUMBNAIL_BYTES: usize = 64 << 20;
/// Pictures that may wait to be read: a page asks for many at once.
const WAITING_PICTURES: usize = 1024;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// What was given does not fit together.
    #[error("{0}")]
    Unusable(String),
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; choose another --port (0: any free one), or stop what listens there"
    )]
    Address {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The threads or the connection handling failed.
    #[error("the server ended: {0}")]
    Ended(#[from] std::io::Error),
}

/// A server that listens already and answers once it runs.
#[allow(missing_debug_implementations, reason = "an embedder has no text")]
pub struct Server {
    runtime: tokio::runtime::Runtime,
    listener: TcpListener,
    shared: Shared,
}

impl Server {
    /// Listens on an address; port 0 takes a free one.
    ///
    /// `indexes` are one or two: the first is searched, the second shown beside it. Each comes with its name. Pictures are read below
    /// the image root of their index only.
    ///
    /// # Errors
    /// No index or more than two, an embedder of another width, an address that cannot be listened on.
    pub fn bind(
        host: &str,
        port: u16,
        indexes: Vec<(String, Index)>,
        embedder: Option<Box<dyn Embedder>>,
        options: Options,
    ) -> Result<Self, ServeError> {
        if !(1..=2).contains(&indexes.len()) {
            return Err(ServeError::Unusable(format!(
                "one index is served, or two beside each other; {} were given",
                indexes.len()
            )));
        }
        if let Some(embedder) = &embedder {
            let (expected, found) = (indexes[0].1.dimension(), embedder.dimension());
            if expected != found {
                return Err(ServeError::Unusable(format!(
                    "the index holds vectors of width {expected}, the model makes vectors of width {found}: serve the index with the \
                     run it was built with"
                )));
            }
        }
        let indexes: Vec<Served> = indexes
            .into_iter()
            .map(|(name, index)| Served {
                name,
                root: index.image_root().and_then(|root| root.canonicalize().ok()),
                index,
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let address = format!("{host}:{port}");
        let listener = runtime
            .block_on(TcpListener::bind((host, port)))
            .map_err(|source| ServeError::Address { address, source })?;
        let only_this_machine = options.token.is_none() && listener.local_addr().is_ok_and(|at| at.ip().is_loopback());
        let shared = Arc::new(Inside {
            queue: Queue::new(options.queue, options.workers),
            pictures: Queue::new(WAITING_PICTURES, options.workers),
            thumbnails: Thumbnails::new(THUMBNAIL_BYTES),
            metrics: Metrics::default(),
            explorer: Explorer::default(),
            ending: AtomicBool::new(false),
            options,
            indexes,
            embedder,
            only_this_machine,
        });
        Ok(Self {
            runtime,
            listener,
            shared,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> Result<SocketAddr, ServeError> {
        Ok(self.listener.local_addr()?)
    }

    /// Answers until `stop` says so, SIGTERM or Ctrl-C comes; then lets requests that were begun end, for as long as the timeout.
    ///
    /// # Errors
    /// If connections cannot be accepted any more.
    pub fn run(self, stop: impl Fn() -> bool + Send + 'static) -> Result<(), ServeError> {
        let Self {
            runtime,
            listener,
            shared,
        } = self;
        let explored = Arc::clone(&shared);
        let explorer = std::thread::spawn(move || Explorer::compute(&explored));
        let result = runtime.block_on(accept(listener, Arc::clone(&shared), stop));
        // A layout that is still being computed is of no use any more.
        drop(explorer);
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }
}

async fn accept(listener: TcpListener, shared: Shared, stop: impl Fn() -> bool) -> Result<(), ServeError> {
    let places = Arc::new(Semaphore::new(shared.options.connections.max(1)));
    let graceful = GracefulShutdown::new();
    let routes = router(&shared);
    let mut end = std::pin::pin!(asked_to_end(stop));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            next = next => next,
            () = &mut end => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, or the client is gone already: neither is a reason to end.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(shared.options.timeout)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes.clone()));
        let watched = graceful.watch(connection);
        let counted = Arc::clone(&shared);
        tokio::spawn(async move {
            counted.metrics.connections.fetch_add(1, Ordering::Relaxed);
            let _ = watched.await;
            counted.metrics.connections.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
    shared.ending.store(true, Ordering::Relaxed);
    drop(listener);
    let _ = tokio::time::timeout(shared.options.timeout, graceful.shutdown()).await;
    Ok(())
}

/// Returns once a signal or `stop` asks for the end.
async fn asked_to_end(stop: impl Fn() -> bool) {
    let polled = async {
        while !stop() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = polled => (),
        () = terminated => (),
        () = interrupted => (),
    }
}
