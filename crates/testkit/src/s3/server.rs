//! The thread of a server, its connections, and what a fault does to them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::answer::{answer, operation_of};
use super::faults::{Failure, S3Request, Verdict};
use super::http::{Connection, HttpAnswer, HttpRequest};
use super::{Shared, auth};

/// A thread that serves until this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Begins to listen on a loopback port, in a thread and runtime of its own: a test may stop or
    /// pause the time of its runtime.
    pub(crate) fn start(shared: Arc<Shared>, port: u16) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("test-s3".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; it shall not hide the test's own.
            drop(thread.join());
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // A client that goes away, or that sends what is no request, ends its connection only.
    drop(stream.set_nodelay(true));
    let mut connection = Connection::new(stream);
    while let Ok(Some(request)) = connection.next().await {
        match serve_one(connection, &request, &shared).await {
            Ok(Some(open)) => connection = open,
            Ok(None) | Err(_) => return,
        }
    }
}

/// Serves a request; gives the connection back if it stays open.
async fn serve_one(
    mut connection: Connection,
    request: &HttpRequest,
    shared: &Shared,
) -> io::Result<Option<Connection>> {
    let Some(operation) = operation_of(request) else {
        let refused = auth::check(shared.dialect, request).err();
        let unknown = || HttpAnswer::error(501, "NotImplemented", "not implemented");
        connection.answer(&refused.unwrap_or_else(unknown).to(request)).await?;
        return Ok(Some(connection));
    };
    let prefix = || request.query("prefix").unwrap_or_default().to_owned();
    let (_, key) = request.bucket_and_key();
    let key = if key.is_empty() { prefix() } else { key };
    let verdict = shared.control().begin(S3Request { operation, key });
    let served = serve_as(connection, request, shared, &verdict).await;
    shared.control().end();
    served
}

async fn serve_as(
    mut connection: Connection,
    request: &HttpRequest,
    shared: &Shared,
    verdict: &Verdict,
) -> io::Result<Option<Connection>> {
    if !verdict.wait.is_zero() {
        tokio::time::sleep(verdict.wait).await;
    }
    let serve = || match auth::check(shared.dialect, request) {
        Ok(()) => answer(shared, request, verdict.mode).to(request),
        Err(refused) => refused.to(request),
    };
    if let Some((Failure::Status(_) | Failure::Reset | Failure::Close, true)) = verdict.fault {
        // Whatever the answer is, it is lost.
        drop(serve());
    }
    match verdict.fault {
        Some((Failure::Status(status), _)) => {
            connection.answer(&injected(status).to(request)).await?;
            Ok(Some(connection))
        }
        Some((Failure::Reset, _)) => connection.reset().map(|()| None),
        Some((Failure::Close, _)) => Ok(None),
        Some((Failure::HalfBody, _)) => {
            connection.answer_half(&serve()).await?;
            Ok(None)
        }
        Some((Failure::Delay(_) | Failure::StaleList(_), _)) | None => {
            connection.answer(&serve()).await?;
            Ok(Some(connection))
        }
    }
}

fn injected(status: u16) -> HttpAnswer {
    let code = match status {
        409 => "ConditionalRequestConflict",
        412 => "PreconditionFailed",
        429 | 503 => "SlowDown",
        _ => "InternalError",
    };
    HttpAnswer::error(status, code, "injected fault")
}
