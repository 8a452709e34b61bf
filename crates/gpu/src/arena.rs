//! Divides a range of addresses into blocks.
//!
//! Blocks begin at multiples of [`ALIGNMENT`]. The smallest hole that is large enough is taken; holes that
//! touch become one. Nothing here touches memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidelog_warm::WarmError;

/// What addresses and lengths of blocks are multiples of, in bytes.
pub(crate) const ALIGNMENT: u64 = 256;

/// So many bytes, rounded up to what blocks are multiples of.
pub(crate) const fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

/// A range of addresses, and which parts of it are free.
#[derive(Debug)]
pub(crate) struct Arena {
    /// Lengths of the holes, by address.
    holes: Mutex<BTreeMap<u64, u64>>,
}

/// Part of an arena, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Block {
    arena: Arc<Arena>,
    start: u64,
    bytes: u64,
}

impl Arena {
    /// All of the range is free. Its start is a multiple of [`ALIGNMENT`].
    pub(crate) fn new(start: u64, bytes: u64) -> Arc<Self> {
        let bytes = bytes / ALIGNMENT * ALIGNMENT;
        let holes = if bytes > 0 { BTreeMap::from([(start, bytes)]) } else { BTreeMap::new() };
        Arc::new(Self { holes: Mutex::new(holes) })
    }

    /// Takes a block of so many bytes.
    ///
    /// # Errors
    ///
    /// [`WarmError::OutOfMemory`] if no hole is as long; `free` is the longest.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Result<Block, WarmError> {
        let wanted = aligned(bytes.max(1));
        let mut holes = self.holes.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = holes.iter().filter(|(_, length)| **length >= wanted);
        let Some((&start, &length)) = fits.min_by_key(|(_, length)| **length) else {
            let free = holes.values().copied().max().unwrap_or(0);
            return Err(WarmError::OutOfMemory { wanted, free });
        };
        holes.remove(&start);
        if length > wanted {
            holes.insert(start + wanted, length - wanted);
        }
        Ok(Block { arena: Arc::clone(self), start, bytes: wanted })
    }

    fn give_back(&self, start: u64, bytes: u64) {
        let mut holes = self.holes.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut from, mut length) = (start, bytes);
        if let Some((&before, &its)) = holes.range(..start).next_back()
            && before + its == start
        {
            (from, length) = (before, length + its);
        }
        if let Some(after) = holes.remove(&(start + bytes)) {
            length += after;
        }
        holes.insert(from, length);
    }
}

impl Block {
    /// Its address.
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.arena.give_back(self.start, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_that_does_not_fit_is_refused_with_the_longest_hole() {
        let arena = Arena::new(1024, 1000);
        let first = arena.take(1).unwrap();
        let error = arena.take(513).unwrap_err();
        assert!(matches!(error, WarmError::OutOfMemory { wanted: 768, free: 512 }), "{error}");
        drop(first);
        assert_eq!(arena.take(768).unwrap().start(), 1024);
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_all_comes_back(
            steps in prop::collection::vec((any::<bool>(), 0_u64..5000), 1..200)
        ) {
            let arena = Arena::new(4096, 64 << 10);
            let mut blocks: Vec<Block> = Vec::new();
            for (take, amount) in steps {
                if take || blocks.is_empty() {
                    let Ok(block) = arena.take(amount) else { continue };
                    prop_assert!(block.bytes >= amount && block.start % ALIGNMENT == 0);
                    prop_assert!(block.start >= 4096 && block.start + block.bytes <= 4096 + (64 << 10));
                    for other in &blocks {
                        let apart = other.start + other.bytes <= block.start
                            || block.start + block.bytes <= other.start;
                        prop_assert!(apart);
                    }
                    blocks.push(block);
                } else {
                    blocks.swap_remove(usize::try_from(amount).unwrap() % blocks.len());
                }
            }
            blocks.clear();
            prop_assert!(arena.take(64 << 10).is_ok());
        }
    }
}
