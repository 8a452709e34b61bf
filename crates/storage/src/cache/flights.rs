//! One request for a block, however many readers wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::block::{Block, BlockId};

/// Blocks that are being fetched.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights {
    under_way: Arc<Mutex<HashMap<BlockId, watch::Receiver<Option<Block>>>>>,
}

/// Who fetches a block.
pub(super) enum Claim {
    /// The caller.
    Lead(Lead),
    /// Somebody else, who will tell.
    Follow(Follow),
}

/// The duty to fetch a block. Whoever drops it has failed.
///
/// It belongs into a task of its own: readers wait for it, and a future that nobody polls would
/// let them wait for ever.
pub(super) struct Lead {
    flights: Flights,
    id: BlockId,
    sender: watch::Sender<Option<Block>>,
}

/// Waits for a block that somebody else fetches.
pub(super) struct Follow {
    receiver: watch::Receiver<Option<Block>>,
}

impl Flights {
    pub(super) fn claim(&self, id: BlockId) -> Claim {
        let mut under_way = self.under_way();
        if let Some(receiver) = under_way.get(&id) {
            return Claim::Follow(Follow { receiver: receiver.clone() });
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(id, receiver);
        Claim::Lead(Lead { flights: self.clone(), id, sender })
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<BlockId, watch::Receiver<Option<Block>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead {
    pub(super) fn number(&self) -> u64 {
        self.id.number
    }

    /// Hands the block to all who wait.
    pub(super) fn land(self, block: Block) {
        self.sender.send_replace(Some(block));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.id);
    }
}

impl Follow {
    /// The block, or nothing if its lead has failed.
    pub(super) async fn landed(mut self) -> Option<Block> {
        let landed = self.receiver.wait_for(Option::is_some).await;
        landed.ok().and_then(|block| block.clone())
    }
}
