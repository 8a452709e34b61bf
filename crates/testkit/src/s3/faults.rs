//! The script of what goes wrong, and what was asked.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::answer::Mode;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum S3Operation {
    /// Reading an object or a range of it.
    Get,
    /// Asking for an object's metadata.
    Head,
    /// Writing an object.
    Put,
    /// Copying an object.
    Copy,
    /// Deleting an object.
    Delete,
    /// Deleting many objects.
    DeleteMany,
    /// Reading one page of a list.
    List,
    /// Beginning a multipart upload.
    CreateUpload,
    /// Sending a part of it.
    PutPart,
    /// Ending it.
    CompleteUpload,
    /// Giving it up.
    AbortUpload,
}

impl S3Operation {
    /// Whether it changes anything.
    #[must_use]
    pub fn changes(self) -> bool {
        !matches!(self, Self::Get | Self::Head | Self::List)
    }
}

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It is served this much later.
    Delay(Duration),
    /// It is answered with this status.
    Status(u16),
    /// The connection is reset.
    Reset,
    /// The connection is closed without an answer.
    Close,
    /// It is served, but only half of the body is sent.
    HalfBody,
    /// A list leaves out so many of the newest objects.
    StaleList(u64),
}

impl Failure {
    /// The failures that [`inject_randomly`](super::TestS3::inject_randomly) chooses from, each
    /// before or after the request took effect.
    const RANDOM: [Self; 6] = [
        Self::Status(500),
        Self::Status(503),
        Self::Reset,
        Self::Close,
        Self::HalfBody,
        Self::Delay(Duration::from_millis(20)),
    ];
}

/// One fault of a script.
#[derive(Debug, Clone)]
#[must_use]
pub struct HttpFault {
    failure: Failure,
    after: bool,
    operation: Option<S3Operation>,
    key: Option<String>,
    nth: u64,
    again: Again,
}

/// Whether a fault strikes once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Never,
    EveryNth,
    FromNthOn,
}

impl HttpFault {
    /// The first request fails once, without taking effect.
    pub fn new(failure: Failure) -> Self {
        Self { failure, after: false, operation: None, key: None, nth: 1, again: Again::Never }
    }

    /// Only requests of this kind count and fail. Default: all.
    pub fn on(mut self, operation: S3Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only requests whose key (of lists: prefix) holds `part` count and fail. Default: all.
    pub fn at_key(mut self, part: impl Into<String>) -> Self {
        self.key = Some(part.into());
        self
    }

    /// The `n`-th of those requests fails, counted from 1. Default: 1.
    pub fn nth(mut self, n: u64) -> Self {
        self.nth = n.max(1);
        self
    }

    /// Every `n`-th of them fails, until [`heal`](super::TestS3::heal). Default: only the `n`-th.
    pub fn every(mut self) -> Self {
        self.again = Again::EveryNth;
        self
    }

    /// All from the `n`-th on fail, until [`heal`](super::TestS3::heal). Default: only the `n`-th.
    pub fn for_good(mut self) -> Self {
        self.again = Again::FromNthOn;
        self
    }

    /// The request takes effect before its answer is spoiled. Default: it does not.
    pub fn after(mut self) -> Self {
        self.after = true;
        self
    }

    fn counts(&self, request: &S3Request) -> bool {
        self.operation.is_none_or(|wanted| wanted == request.operation)
            && self.key.as_deref().is_none_or(|part| request.key.contains(part))
    }
}

/// One request, as it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Request {
    /// Its kind.
    pub operation: S3Operation,
    /// The key, or the prefix of a list.
    pub key: String,
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// All requests.
    pub total: u64,
    /// By kind.
    pub by_operation: BTreeMap<S3Operation, u64>,
    /// How many were under way at once, at most.
    pub concurrent_max: u64,
    /// How often a request arrived when none was under way: with a latency, how many of them a
    /// client waits for one after the other.
    pub round_trips: u64,
}

/// What becomes of one request.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) wait: Duration,
    pub(crate) fault: Option<(Failure, bool)>,
    pub(crate) mode: Mode,
}

/// The settings of a server.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) read_only: bool,
    pub(crate) ignore_conditions: bool,
    pub(crate) latency: Duration,
    pub(crate) page_max: usize,
    script: Vec<(HttpFault, u64)>,
    random: Option<(StdRng, f64)>,
    requests: Vec<S3Request>,
    counts: Counts,
    under_way: u64,
    injected: u64,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            read_only: false,
            ignore_conditions: false,
            latency: Duration::ZERO,
            page_max: 1_000,
            script: Vec::new(),
            random: None,
            requests: Vec::new(),
            counts: Counts::default(),
            under_way: 0,
            injected: 0,
        }
    }
}

impl Control {
    pub(crate) fn inject(&mut self, fault: HttpFault) {
        self.script.push((fault, 0));
    }

    pub(crate) fn inject_randomly(&mut self, seed: u64, probability: f64) {
        self.random = Some((StdRng::seed_from_u64(seed), probability.clamp(0.0, 1.0)));
    }

    pub(crate) fn heal(&mut self) {
        self.script.clear();
        self.random = None;
    }

    pub(crate) fn injected(&self) -> u64 {
        self.injected
    }

    pub(crate) fn take_requests(&mut self) -> Vec<S3Request> {
        std::mem::take(&mut self.requests)
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn reset_counts(&mut self) {
        self.counts = Counts::default();
    }

    /// Notes the beginning of a request and decides what becomes of it.
    pub(crate) fn begin(&mut self, request: S3Request) -> Verdict {
        if self.under_way == 0 {
            self.counts.round_trips += 1;
        }
        self.under_way += 1;
        self.counts.total += 1;
        *self.counts.by_operation.entry(request.operation).or_default() += 1;
        self.counts.concurrent_max = self.counts.concurrent_max.max(self.under_way);
        let mut fault = self.scripted(&request).or_else(|| self.random());
        self.requests.push(request);
        self.injected += u64::from(fault.is_some());
        let mut wait = self.latency;
        let mut stale = 0;
        match fault {
            Some((Failure::Delay(delay), _)) => {
                wait += delay;
                fault = None;
            }
            Some((Failure::StaleList(objects), _)) => {
                stale = objects;
                fault = None;
            }
            _ => {}
        }
        let mode = Mode {
            read_only: self.read_only,
            ignore_conditions: self.ignore_conditions,
            page_max: self.page_max,
            stale,
        };
        Verdict { wait, fault, mode }
    }

    /// Notes the end of a request.
    pub(crate) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    fn scripted(&mut self, request: &S3Request) -> Option<(Failure, bool)> {
        let mut hit = None;
        for (fault, seen) in &mut self.script {
            if fault.counts(request) {
                *seen += 1;
                let strikes = match fault.again {
                    Again::Never => *seen == fault.nth,
                    Again::EveryNth => seen.is_multiple_of(fault.nth),
                    Again::FromNthOn => *seen >= fault.nth,
                };
                if strikes && hit.is_none() {
                    hit = Some((fault.failure, fault.after));
                }
            }
        }
        hit
    }

    fn random(&mut self) -> Option<(Failure, bool)> {
        let (rng, probability) = self.random.as_mut()?;
        if !rng.random_bool(*probability) {
            return None;
        }
        Some((*Failure::RANDOM.choose(rng)?, rng.random_bool(0.5)))
    }
}
