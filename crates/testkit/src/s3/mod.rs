//! An object store on a loopback port, in this process, that speaks S3 and fails on purpose.
//!
//! It answers what `object_store` asks of S3 (get with ranges, put, head, delete, lists in pages,
//! multipart uploads, bulk deletes), checks SigV4 signatures, and decides conditional puts under one
//! lock, so that of any number of creating puts exactly one wins. Raw sockets let it do what a proper
//! server never would: reset a connection before or after it did what was asked, lose an answer, send
//! half a body.
//!
//! | module | holds |
//! |---|---|
//! | `http` | requests from and answers to a socket |
//! | `auth` | the check of SigV4 signatures |
//! | `objects` | buckets, objects, uploads; conditions are decided here |
//! | `answer` | request → answer |
//! | `faults` | the script of what goes wrong, and what was asked |
//! | `server` | the thread, its connections, what a fault does to them |
//!
//! It also speaks the dialect of Google Cloud Storage that `object_store` uses
//! ([`TestS3::start_gcs`]). That is our own double, written after Google's documentation and the
//! client's source: passing against it shows that the requests make sense together, not that Google
//! answers them so.

mod answer;
mod auth;
mod faults;
mod http;
mod objects;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use faults::{Counts, Failure, HttpFault, S3Operation, S3Request};

use objects::Buckets;

/// The bucket that there is from the beginning.
pub const BUCKET: &str = "tidelog-test";
/// The id of the one access key.
pub const ACCESS_KEY_ID: &str = "TESTKEYID";
/// Its secret.
pub const SECRET_ACCESS_KEY: &str = "test-secret-access-key";

/// Whose protocol a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    S3,
    Gcs,
}

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct TestS3 {
    shared: Arc<Shared>,
    server: server::Server,
}

/// What the handle and the server's connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dialect: Dialect,
    buckets: Mutex<Buckets>,
    control: Mutex<faults::Control>,
}

impl Shared {
    pub(crate) fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn control(&self) -> MutexGuard<'_, faults::Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TestS3 {
    /// Starts an S3 server on a free loopback port.
    ///
    /// # Errors
    /// If no port or thread can be had.
    pub fn start() -> io::Result<Self> {
        Self::start_on(0)
    }

    /// Starts an S3 server on a loopback port; 0 stands for a free one.
    ///
    /// # Errors
    /// If the port or a thread cannot be had.
    pub fn start_on(port: u16) -> io::Result<Self> {
        Self::start_speaking(Dialect::S3, port)
    }

    /// Starts a server that speaks Google Cloud Storage's dialect. It checks no credentials.
    ///
    /// # Errors
    /// If no port or thread can be had.
    pub fn start_gcs() -> io::Result<Self> {
        Self::start_speaking(Dialect::Gcs, 0)
    }

    fn start_speaking(dialect: Dialect, port: u16) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { dialect, buckets: Mutex::default(), control: Mutex::default() });
        shared.buckets().create_bucket(BUCKET);
        let server = server::Server::start(Arc::clone(&shared), port)?;
        Ok(Self { shared, server })
    }

    /// Where it listens, as `http://127.0.0.1:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// The URL of a place in its bucket, as a Tidelog location; credentials come by
    /// [`options`](Self::options).
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        self.url_in(BUCKET, prefix)
    }

    /// The URL of a place in another bucket, which need not exist.
    #[must_use]
    pub fn url_in(&self, bucket: &str, prefix: &str) -> String {
        let scheme = match self.shared.dialect {
            Dialect::S3 => "s3",
            Dialect::Gcs => "gs",
        };
        format!("{scheme}://{bucket}/{prefix}?endpoint={}", self.endpoint())
    }

    /// The storage options that hold its credentials.
    #[must_use]
    pub fn options(&self) -> Vec<(String, String)> {
        let account = serde_json::json!({
            "gcs_base_url": self.endpoint(),
            "disable_oauth": true,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        });
        let options = match self.shared.dialect {
            Dialect::S3 => vec![
                ("aws_access_key_id", ACCESS_KEY_ID.to_owned()),
                ("aws_secret_access_key", SECRET_ACCESS_KEY.to_owned()),
                ("aws_region", "us-east-1".to_owned()),
            ],
            Dialect::Gcs => vec![("google_service_account_key", account.to_string())],
        };
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Makes another bucket.
    pub fn create_bucket(&self, name: &str) {
        self.shared.buckets().create_bucket(name);
    }

    /// The keys in its bucket, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.shared.buckets().keys(BUCKET)
    }

    /// Answers all that would change something with 403, or no longer.
    pub fn set_read_only(&self, on: bool) {
        self.shared.control().read_only = on;
    }

    /// Ignores the conditions of puts, as some servers do, or no longer.
    pub fn set_ignore_conditions(&self, on: bool) {
        self.shared.control().ignore_conditions = on;
    }

    /// Makes each request take this long.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.control().latency = latency;
    }

    /// Makes pages of lists hold at most so many entries. Default: 1,000.
    pub fn set_page_max(&self, entries: usize) {
        self.shared.control().page_max = entries.max(1);
    }

    /// Adds a fault to the script.
    pub fn inject(&self, fault: HttpFault) {
        self.shared.control().inject(fault);
    }

    /// Makes requests fail with this probability, in ways that the seed chooses.
    pub fn inject_randomly(&self, seed: u64, probability: f64) {
        self.shared.control().inject_randomly(seed, probability);
    }

    /// Removes all faults, random ones too.
    pub fn heal(&self) {
        self.shared.control().heal();
    }

    /// How many faults have struck.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.shared.control().injected()
    }

    /// The requests since the last call, in order of arrival.
    #[must_use]
    pub fn take_requests(&self) -> Vec<S3Request> {
        self.shared.control().take_requests()
    }

    /// What was counted since the server began, or since [`reset_counts`](Self::reset_counts).
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.control().counts().clone()
    }

    /// Begins to count anew.
    pub fn reset_counts(&self) {
        self.shared.control().reset_counts();
    }
}
