//! What the device holds of a segment.

use std::sync::Arc;

use tidelog_warm::{Invalid, Reservation, Segment, WarmError};

use crate::abi::{Address, Column};
use crate::arena::Block;
use crate::device::{Device, Event};

/// The columns of a segment, in one block of the arena.
///
/// Keys take nothing: rows of a key lie together, and the host knows where. Freed when it is dropped,
/// which no request does before its lane has been waited for.
#[derive(Debug)]
pub(crate) struct Held {
    /// Of each column of the table where it lies. None of key columns and those that are left out.
    pub(crate) columns: Vec<Option<Column>>,
    /// Times of the rows.
    pub(crate) times: Address,
    /// Where the rows of each key begin, and at the end the number of rows.
    pub(crate) offsets: Address,
    /// Everything is there.
    pub(crate) ready: Event,
    pub(crate) device: Arc<Device>,
    /// Both are given back with this.
    pub(crate) _block: Block,
    pub(crate) _reservation: Reservation,
}

impl Held {
    /// What a device holds of a segment, which is not given back as long as the caller keeps it.
    ///
    /// # Errors
    ///
    /// [`WarmError::Evicted`], or [`WarmError::Invalid`] if another backend sealed the segment.
    pub(crate) fn of(segment: &Segment, device: &Arc<Device>) -> Result<Arc<Self>, WarmError> {
        let foreign = || Invalid::ForeignSegment { segment: segment.id() };
        let held = segment.data()?.downcast::<Self>().map_err(|_| foreign())?;
        if !Arc::ptr_eq(&held.device, device) {
            return Err(foreign().into());
        }
        Ok(held)
    }
}
