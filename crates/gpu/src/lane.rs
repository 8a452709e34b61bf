//! Lanes: what one request at a time has for itself, and waiting for one.

use std::sync::{Condvar, Mutex, PoisonError};

use tidelog_warm::WarmError;

use crate::abi::{Address, Plain};
use crate::arena::aligned;
use crate::device::Stream;

/// A stream with scratch memory.
///
/// Scratch is handed out from front to back, and taken back all at once.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) stream: Stream,
    start: Address,
    bytes: u64,
    used: u64,
}

impl Lane {
    /// The scratch is part of the device's memory.
    pub(crate) const fn new(stream: Stream, start: Address, bytes: u64) -> Self {
        Self { stream, start, bytes, used: 0 }
    }

    /// Bytes of scratch that are left.
    pub(crate) const fn left(&self) -> u64 {
        self.bytes - self.used
    }

    /// Bytes of scratch in all.
    pub(crate) const fn scratch_bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes scratch.
    ///
    /// # Errors
    ///
    /// [`WarmError::OutOfMemory`] if too little is left.
    pub(crate) fn scratch(&mut self, bytes: u64) -> Result<Address, WarmError> {
        let wanted = aligned(bytes);
        if wanted > self.left() {
            return Err(WarmError::OutOfMemory { wanted, free: self.left() });
        }
        let at = self.start + self.used;
        self.used += wanted;
        Ok(at)
    }

    /// Takes scratch, and fills it with zeros.
    pub(crate) fn zeros(&mut self, bytes: u64) -> Result<Address, WarmError> {
        let at = self.scratch(bytes)?;
        self.stream.clear(at, bytes)?;
        Ok(at)
    }

    /// Takes scratch, and copies values to it.
    pub(crate) fn put<T: Plain>(&mut self, values: &[T]) -> Result<Address, WarmError> {
        let at = self.scratch(size_of_val(values) as u64)?;
        self.stream.upload(at, values)?;
        Ok(at)
    }

    /// How much scratch is taken, to come back to with [`Lane::back_to`].
    pub(crate) const fn mark(&self) -> u64 {
        self.used
    }

    /// Takes back what was taken since. The stream goes on in order: what runs is not disturbed.
    pub(crate) const fn back_to(&mut self, mark: u64) {
        self.used = mark;
    }

    /// Takes all scratch back.
    pub(crate) const fn reset(&mut self) {
        self.used = 0;
    }
}

/// Lanes that requests take turns on.
#[derive(Debug)]
pub(crate) struct Lanes {
    free: Mutex<Vec<Lane>>,
    returned: Condvar,
}

/// A lane for the time of a request.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    lanes: &'a Lanes,
    lane: Option<Lane>,
}

impl Lanes {
    pub(crate) const fn new(lanes: Vec<Lane>) -> Self {
        Self { free: Mutex::new(lanes), returned: Condvar::new() }
    }

    /// Runs something on a lane; waits for one where all are taken.
    ///
    /// When it is done, whatever it did, nothing of it runs on the device any more.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&mut Lane) -> Result<T, WarmError>,
    ) -> Result<T, WarmError> {
        let mut taken = self.take();
        match taken.lane.as_mut() {
            Some(lane) => work(lane),
            None => Err(WarmError::Dead { reason: "a lane is gone".to_owned() }),
        }
    }

    fn take(&self) -> Taken<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.returned.wait_while(free, |free| free.is_empty());
        let lane = waited.unwrap_or_else(PoisonError::into_inner).pop();
        Taken { lanes: self, lane }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(mut lane) = self.lane.take() {
            // Segments that the request has read may be freed from now on. A device that is dead runs
            // nothing, and says so to the next request.
            let _ = lane.stream.wait();
            lane.reset();
            self.lanes.free.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
            self.lanes.returned.notify_one();
        }
    }
}
