//! Who holds how many bytes: a budget, the segments within it, and counters.
//!
//! A backend reserves bytes before it copies anything. Where there are not enough, segments go that
//! were not used for longest. What they held is free once nobody reads it any more: a [`Reservation`]
//! lies beside the data and gives its bytes back when that is dropped.
//!
//! Where the memory is not the ledger's alone, [`SharedMemory`] has to grant every byte, too.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::error::WarmError;
use crate::segment::Segment;

/// So many segments to evict are looked for at once, since all are looked through for that.
const NEXT_MAX: usize = 64;

/// A budget of bytes, and what lies within it.
#[derive(Debug)]
pub struct Ledger {
    budget: u64,
    used: Arc<AtomicU64>,
    clock: AtomicU64,
    seals: AtomicU64,
    hits: AtomicU64,
    evictions: AtomicU64,
    segments: Mutex<Vec<Weak<Segment>>>,
    /// Segments that were not used for longest when all were looked at last, with when they were used; the
    /// next to go is the last.
    next: Mutex<Vec<(u64, Weak<Segment>)>>,
    fallbacks: Mutex<BTreeMap<&'static str, u64>>,
    shared: Option<Arc<dyn SharedMemory>>,
}

/// Memory that segments share with others, who may have taken some of what the ledger's own budget
/// would allow.
pub trait SharedMemory: fmt::Debug + Send + Sync {
    /// Takes bytes, if they are free. Does not block.
    ///
    /// # Errors
    ///
    /// How many bytes are free, if they are too few; nothing is taken then.
    fn try_take(&self, bytes: u64) -> Result<(), u64>;

    /// Gives bytes back that were taken. Does not block.
    fn give_back(&self, bytes: u64);
}

/// Bytes of a budget, given back when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    bytes: u64,
    used: Arc<AtomicU64>,
    shared: Option<Arc<dyn SharedMemory>>,
}

impl Reservation {
    /// How many bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::AcqRel);
        if let Some(shared) = &self.shared {
            shared.give_back(self.bytes);
        }
    }
}

/// What a backend says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendStats {
    /// Name of the backend: `host` or `cuda`.
    pub backend: &'static str,
    /// Where the rows lie, in the words of the backend.
    pub device: String,
    /// Bytes that segments may take.
    pub budget_bytes: u64,
    /// Bytes that they take, those included that are evicted and still read.
    pub used_bytes: u64,
    /// Segments that are held.
    pub segments: u64,
    /// Their rows.
    pub rows: u64,
    /// Segments that were sealed.
    pub seals: u64,
    /// Requests that were answered.
    pub hits: u64,
    /// Segments that were evicted.
    pub evictions: u64,
    /// Calls that failed, by [`WarmError::reason`].
    pub fallbacks: BTreeMap<&'static str, u64>,
    /// Why the backend is out of use, if it is.
    pub dead: Option<String>,
}

impl Ledger {
    /// A ledger of a budget of so many bytes.
    #[must_use]
    pub fn new(budget: u64) -> Self {
        Self {
            budget,
            used: Arc::default(),
            clock: AtomicU64::new(1),
            seals: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            segments: Mutex::default(),
            next: Mutex::default(),
            fallbacks: Mutex::default(),
            shared: None,
        }
    }

    /// Takes what segments need of this memory, too. Default: the budget is the ledger's alone.
    #[must_use]
    pub fn with_shared_memory(mut self, memory: Arc<dyn SharedMemory>) -> Self {
        self.shared = Some(memory);
        self
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// The most bytes that may be taken: 95 % of the budget.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.budget - self.budget / 20
    }

    /// Takes bytes of the budget, and evicts what was not used for longest where there are too few.
    ///
    /// # Errors
    ///
    /// [`WarmError::OutOfMemory`] if evicting every segment that nobody reads is not enough.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, WarmError> {
        let limit = self.limit();
        if bytes > limit {
            return Err(WarmError::OutOfMemory { wanted: bytes, free: limit });
        }
        loop {
            match self.try_reserve(bytes) {
                Ok(reservation) => return Ok(reservation),
                Err(free) if !self.evict_one() => {
                    return Err(WarmError::OutOfMemory { wanted: bytes, free });
                }
                Err(_) => {}
            }
        }
    }

    /// Takes bytes if they are free; otherwise tells how many are.
    fn try_reserve(&self, bytes: u64) -> Result<Reservation, u64> {
        let limit = self.limit();
        let take = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.map_err(|used| limit.saturating_sub(used))?;
        let mut reservation = Reservation { bytes, used: Arc::clone(&self.used), shared: None };
        if let Some(shared) = &self.shared {
            shared.try_take(bytes)?;
            reservation.shared = Some(Arc::clone(shared));
        }
        Ok(reservation)
    }

    /// Lets go of segments that nobody reads, those not used for longest first, until so many bytes
    /// are free that were not; tells how many there are.
    pub fn make_room(&self, bytes: u64) -> u64 {
        let before = self.used_bytes();
        let freed = || before.saturating_sub(self.used_bytes());
        while freed() < bytes && self.evict_one() {}
        freed()
    }

    /// Notes a segment that was sealed.
    pub fn admit(&self, segment: &Arc<Segment>) {
        self.seals.fetch_add(1, Ordering::Relaxed);
        self.touch(segment);
        let mut segments = self.segments();
        // Where there is no room for more, so that each is looked at a few times in all.
        if segments.len() == segments.capacity() {
            segments.retain(|segment| segment.strong_count() > 0);
            let room = segments.len().max(NEXT_MAX);
            segments.reserve(room);
        }
        segments.push(Arc::downgrade(segment));
    }

    /// Notes that a segment is used.
    pub fn touch(&self, segment: &Segment) {
        segment.use_at(self.clock.fetch_add(1, Ordering::Relaxed));
    }

    /// Lets go of a segment; tells whether it was held.
    pub fn evict(&self, segment: &Segment) -> bool {
        let held = segment.release();
        self.evictions.fetch_add(u64::from(held), Ordering::Relaxed);
        held
    }

    /// Lets go of all segments.
    pub fn evict_all(&self) {
        for segment in self.live() {
            self.evict(&segment);
        }
    }

    /// Counts a request by its outcome, and passes it on.
    ///
    /// # Errors
    ///
    /// That of the call.
    pub fn count<T>(&self, outcome: Result<T, WarmError>) -> Result<T, WarmError> {
        match &outcome {
            Ok(_) => self.hits.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                self.count_failure(error);
                0
            }
        };
        outcome
    }

    /// Counts a call that failed.
    pub fn count_failure(&self, error: &WarmError) {
        let mut fallbacks = self.fallbacks.lock().unwrap_or_else(PoisonError::into_inner);
        *fallbacks.entry(error.reason()).or_default() += 1;
    }

    /// What is known, for a backend of this name.
    #[must_use]
    pub fn stats(
        &self,
        backend: &'static str,
        device: String,
        dead: Option<String>,
    ) -> BackendStats {
        let live = self.live();
        let fallbacks = self.fallbacks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        BackendStats {
            backend,
            device,
            budget_bytes: self.budget,
            used_bytes: self.used_bytes(),
            segments: live.len() as u64,
            rows: live.iter().map(|segment| segment.rows() as u64).sum(),
            seals: self.seals.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            fallbacks,
            dead,
        }
    }

    /// Evicts the segment not used for longest of those that nobody reads; tells whether there was one.
    ///
    /// One that is read would not give its bytes back yet.
    fn evict_one(&self) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked for once if there are none left, or none of them will do any more.
        for is_new in [false, true] {
            if is_new {
                *next = self.not_used_for_longest();
            }
            while let Some((used_at, segment)) = next.pop() {
                let Some(segment) = segment.upgrade() else { continue };
                let is_idle = segment.used_at() == used_at && !segment.is_in_use();
                if is_idle && self.evict(&segment) {
                    return true;
                }
            }
        }
        false
    }

    /// The segments that were not used for longest of those that nobody reads, the first of them last.
    fn not_used_for_longest(&self) -> Vec<(u64, Weak<Segment>)> {
        let live = self.live();
        let idle = live.iter().filter(|segment| !segment.is_in_use());
        let mut idle: Vec<_> =
            idle.map(|segment| (segment.used_at(), Arc::downgrade(segment))).collect();
        idle.sort_unstable_by_key(|(used_at, _)| *used_at);
        idle.truncate(NEXT_MAX);
        idle.reverse();
        idle
    }

    fn live(&self) -> Vec<Arc<Segment>> {
        let segments: Vec<_> = self.segments().iter().filter_map(Weak::upgrade).collect();
        segments.into_iter().filter(|segment| segment.is_resident()).collect()
    }

    fn segments(&self) -> MutexGuard<'_, Vec<Weak<Segment>>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
