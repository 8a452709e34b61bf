//! The backend.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use tidelog_warm::{
    Answer, BackendStats, Ledger, Request, Segment, WarmBackend, WarmError, WarmTable,
};

use crate::arena::Arena;
use crate::ceilings::{self, Ceilings};
use crate::device::Device;
use crate::lane::{Lane, Lanes};
use crate::open::{self, Disabled, Opened};
use crate::run::Run;
use crate::seal::{self, Room};
use crate::settings::CudaSettings;

/// Segments in the memory of an NVIDIA GPU.
///
/// Handles of its segments keep the device open; drop them before the process ends, or leave that to the
/// driver.
#[derive(Debug)]
pub struct CudaBackend {
    // Dropped in this order: what the device holds goes before the device.
    lanes: Lanes,
    sealer: Mutex<Lane>,
    arena: Arc<Arena>,
    ledger: Ledger,
    device: Arc<Device>,
}

impl CudaBackend {
    /// Opens a device, takes the memory that the settings say, and tries a kernel.
    ///
    /// Blocks: some milliseconds where there is no driver, up to a second where there is one. Never panics,
    /// starts no thread, and leaves nothing behind if it fails.
    ///
    /// # Errors
    ///
    /// [`Disabled`]: there is no driver, no device, or none that will do.
    pub fn open(settings: &CudaSettings) -> Result<Self, Disabled> {
        let Opened { device, lanes, sealer, segments } = open::open(settings)?;
        let (start, bytes) = segments;
        Ok(Self {
            lanes,
            sealer: Mutex::new(sealer),
            arena: Arena::new(start, bytes),
            ledger: Ledger::new(bytes),
            device,
        })
    }

    /// Lets go of all segments.
    pub fn evict_all(&self) {
        self.ledger.evict_all();
    }

    /// Measures how fast the device copies, so many times each. Blocks, and keeps others from sealing.
    ///
    /// # Errors
    ///
    /// [`WarmError::OutOfMemory`] if segments leave less than 2 MiB, [`WarmError::Dead`].
    pub fn ceilings(&self, times: u32) -> Result<Ceilings, WarmError> {
        self.device.check()?;
        let mut lane = self.sealer.lock().unwrap_or_else(PoisonError::into_inner);
        ceilings::measure(&mut lane, &self.arena, times.max(1))
    }

    fn try_seal(
        &self,
        table: &Arc<WarmTable>,
        batches: &[RecordBatch],
    ) -> Result<Arc<Segment>, WarmError> {
        self.device.check()?;
        let mut lane = self.sealer.lock().unwrap_or_else(PoisonError::into_inner);
        let room = Room { ledger: &self.ledger, arena: &self.arena };
        let sealed = seal::seal(&mut lane, &room, table, batches);
        lane.reset();
        sealed
    }

    fn try_run(
        &self,
        table: &Arc<WarmTable>,
        segments: &[Arc<Segment>],
        request: &Request,
    ) -> Result<Answer, WarmError> {
        self.device.check()?;
        // Outlives the lane's time with it, which ends when nothing runs any more.
        let mut run = Run::try_new(&self.device, table, segments, request)?;
        for segment in segments {
            self.ledger.touch(segment);
        }
        self.lanes.with(|lane| run.answer(lane))
    }
}

impl WarmBackend for CudaBackend {
    fn seal(
        &self,
        table: &Arc<WarmTable>,
        batches: &[RecordBatch],
    ) -> Result<Arc<Segment>, WarmError> {
        let sealed = self.try_seal(table, batches);
        if let Err(error) = &sealed {
            self.ledger.count_failure(error);
        }
        sealed
    }

    fn run(
        &self,
        table: &Arc<WarmTable>,
        segments: &[Arc<Segment>],
        request: &Request,
    ) -> Result<Answer, WarmError> {
        self.ledger.count(self.try_run(table, segments, request))
    }

    fn evict(&self, segment: &Segment) -> bool {
        self.ledger.evict(segment)
    }

    fn stats(&self) -> BackendStats {
        let dead = self.device.dead().map(str::to_owned);
        self.ledger.stats("cuda", self.device.name().to_owned(), dead)
    }
}
