//! Which blocks lie in the directory, and which of them were used least recently.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::block::BlockId;

/// Files take whole pages of the disk.
const PAGE_BYTES: u64 = 4096;

/// A block's file, as it was found in the directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) id: BlockId,
    pub(super) bytes: u64,
    /// In microseconds since the epoch.
    pub(super) used: i64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: u64,
    used: i64,
}

/// Blocks in the order of their last use, and their bytes. It knows what this process has done and
/// what was found when the directory was looked through; others may have added and removed since.
#[derive(Debug)]
pub(super) struct Index {
    bytes_max: u64,
    bytes: u64,
    entries: HashMap<BlockId, Entry>,
    order: BTreeSet<(i64, BlockId)>,
    newest: i64,
}

impl Index {
    pub(super) fn new(bytes_max: u64) -> Self {
        let (entries, order) = (HashMap::new(), BTreeSet::new());
        Self { bytes_max, bytes: 0, entries, order, newest: i64::MIN }
    }

    /// A moment after all that were given before; `now` where the clock goes forward.
    pub(super) fn moment(&mut self, now: i64) -> i64 {
        self.newest = now.max(self.newest.saturating_add(1));
        self.newest
    }

    /// Notes that a block was used.
    pub(super) fn touch(&mut self, id: BlockId, bytes: u64, now: i64) {
        let used = self.moment(now);
        self.put(Found { id, bytes, used });
    }

    /// Makes room for a block and notes it; what has to go is yielded. `None` if it is larger than
    /// all the room there is.
    pub(super) fn insert(&mut self, id: BlockId, bytes: u64, now: i64) -> Option<Vec<BlockId>> {
        if on_disk(bytes) > self.bytes_max {
            return None;
        }
        self.touch(id, bytes, now);
        Some(self.evict())
    }

    pub(super) fn contains(&self, id: &BlockId) -> bool {
        self.entries.contains_key(id)
    }

    pub(super) fn remove(&mut self, id: &BlockId) {
        if let Some(entry) = self.entries.remove(id) {
            self.order.remove(&(entry.used, *id));
            self.bytes -= entry.bytes;
        }
    }

    /// Takes over what was found in the directory. What was not, and was not used since the search
    /// `began`, is gone. What has to go to keep within the budget is yielded.
    pub(super) fn reconcile(&mut self, found: Vec<Found>, began: i64) -> Vec<BlockId> {
        let there: HashSet<BlockId> = found.iter().map(|found| found.id).collect();
        let old = self.order.iter().filter(|(used, id)| *used < began && !there.contains(id));
        let gone: Vec<BlockId> = old.map(|(_, id)| *id).collect();
        for id in gone {
            self.remove(&id);
        }
        for mut found in found {
            if let Some(entry) = self.entries.get(&found.id) {
                found.used = found.used.max(entry.used);
            }
            self.put(found);
        }
        self.evict()
    }

    fn put(&mut self, found: Found) {
        self.remove(&found.id);
        let bytes = on_disk(found.bytes);
        self.entries.insert(found.id, Entry { bytes, used: found.used });
        self.order.insert((found.used, found.id));
        self.bytes += bytes;
    }

    fn evict(&mut self) -> Vec<BlockId> {
        let mut evicted = Vec::new();
        while self.bytes > self.bytes_max
            && let Some((_, id)) = self.order.first().copied()
        {
            self.remove(&id);
            evicted.push(id);
        }
        evicted
    }
}

fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_BYTES).saturating_mul(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> BlockId {
        BlockId { store: 0, object: 0, number }
    }

    fn found(number: u64, used: i64) -> Found {
        Found { id: id(number), bytes: 1, used }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut index = Index::new(3 * PAGE_BYTES);
        for number in 0..3 {
            assert_eq!(index.insert(id(number), 1, 10), Some(vec![]));
        }
        index.touch(id(0), 1, 10);
        assert_eq!(index.insert(id(3), PAGE_BYTES + 1, 10), Some(vec![id(1), id(2)]));
        assert_eq!(index.bytes, 3 * PAGE_BYTES);
        assert_eq!(index.insert(id(4), 4 * PAGE_BYTES, 10), None);
        index.remove(&id(3));
        assert_eq!(index.bytes, PAGE_BYTES);
    }

    #[test]
    fn what_is_found_is_taken_over_and_what_is_not_is_forgotten() {
        let mut index = Index::new(3 * PAGE_BYTES);
        index.touch(id(0), 1, 10);
        index.touch(id(1), 1, 11);
        let began = index.moment(12);
        index.touch(id(2), 1, 13);
        // 0 is gone, 1 is there, 2 is newer than the search, others had 3 to 5.
        let evicted =
            index.reconcile(vec![found(1, 5), found(3, 1), found(4, 2), found(5, 30)], began);
        assert_eq!(evicted, [id(3), id(4)]);
        let left: Vec<u64> = index.order.iter().map(|(_, id)| id.number).collect();
        assert_eq!(left, [1, 2, 5]);
    }
}
