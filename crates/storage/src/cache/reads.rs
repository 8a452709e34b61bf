//! How a read is answered from blocks, and the missing ones are fetched.
//!
//! 1. The blocks that a read touches are looked for on disk.
//! 2. Each missing one is claimed; another reader may be fetching it already.
//! 3. A task of its own fetches what was claimed, neighbours in one request, keeps it and hands it to
//!    all who wait. It looks on disk again first: who had it may just have landed it.
//! 4. What others failed to fetch is asked for without claims, so everybody sees an error of their
//!    own.
//!
//! Where blocks cannot tell what the store would say (a range beyond the end, blocks that
//! contradict each other), the store is asked.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, Error, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore,
    Result,
};

use super::block::{self, BLOCK_BYTES, Block};
use super::disk::Disk;
use super::flights::{Claim, Flights, Follow, Lead};
use super::statistics::Counters;
use crate::explained::remote_error;

/// Larger reads are the store's: they would be collected in memory here.
pub(super) const READ_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Requests of one read that are under way at once.
const REQUESTS_MAX: usize = 10;

/// What all clones of a cache share.
#[derive(Debug)]
pub(super) struct Reads {
    pub(super) inner: Arc<dyn ObjectStore>,
    pub(super) disk: Arc<Disk>,
    pub(super) flights: Flights,
    pub(super) counters: Arc<Counters>,
}

/// An answer to a read of a whole object.
pub(super) enum Whole {
    Blocks(Blocks),
    /// The object is too large to be collected.
    Large(GetResult),
    /// Ask the store.
    Unknown,
}

impl Reads {
    /// The blocks that the ranges touch, as far as the object goes; none if the store has to be
    /// asked.
    pub(super) async fn ranges(
        self: &Arc<Self>,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Option<Blocks>> {
        let wanted = block::touched(ranges);
        let found = self.look(location, wanted.clone()).await;
        self.complete(location, wanted, found).await
    }

    /// All blocks of an object.
    pub(super) async fn whole(self: &Arc<Self>, location: &Path) -> Result<Whole> {
        let first = self.look(location, vec![0]).await;
        let size = match first.0.first_key_value() {
            Some((_, block)) => block.meta.size,
            None => match self.flights.claim(self.disk.id(location, 0)) {
                Claim::Lead(lead) => {
                    self.counters.missed(1);
                    let task = Arc::clone(self).lead_whole(location.clone(), lead);
                    return tokio::spawn(task).await?;
                }
                Claim::Follow(follow) => match follow.landed().await {
                    Some(block) => block.meta.size,
                    None => return Ok(Whole::Unknown),
                },
            },
        };
        self.rest(location, size, first).await
    }

    /// The blocks of an object whose size is known.
    async fn rest(self: &Arc<Self>, location: &Path, size: u64, first: Blocks) -> Result<Whole> {
        if size > READ_BYTES_MAX {
            return Ok(Whole::Unknown);
        }
        let wanted: Vec<u64> = (0..block::count(size)).collect();
        let unseen = wanted.iter().filter(|number| !first.0.contains_key(number)).copied();
        let mut found = self.look(location, unseen.collect()).await;
        found.0.extend(first.0);
        let blocks = self.complete(location, wanted, found).await?;
        Ok(blocks.map_or(Whole::Unknown, Whole::Blocks))
    }

    /// Adds what is missing to what was found.
    async fn complete(
        self: &Arc<Self>,
        location: &Path,
        wanted: Vec<u64>,
        mut found: Blocks,
    ) -> Result<Option<Blocks>> {
        let count = found.meta().map_or(u64::MAX, |meta| block::count(meta.size));
        let missing = |number: &u64| *number < count && !found.0.contains_key(number);
        let missing: Vec<u64> = wanted.into_iter().filter(missing).collect();
        self.counters.missed(missing.len());
        match self.fetch(location, missing).await {
            Ok(fetched) => found.add(fetched),
            Err(error) if may_lie_beyond_the_end(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        if !found.agree() {
            self.forget(location).await;
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Blocks that are not on disk. Those beyond the object's end are left out.
    async fn fetch(self: &Arc<Self>, location: &Path, missing: Vec<u64>) -> Result<Vec<Block>> {
        let mut leads: Vec<Lead> = Vec::new();
        let mut follows: Vec<(u64, Follow)> = Vec::new();
        for number in missing {
            match self.flights.claim(self.disk.id(location, number)) {
                Claim::Lead(lead) => leads.push(lead),
                Claim::Follow(follow) => follows.push((number, follow)),
            }
        }
        let mut blocks = Vec::new();
        if !leads.is_empty() {
            blocks = tokio::spawn(Arc::clone(self).lead(location.clone(), leads)).await??;
        }
        let mut left = Vec::new();
        for (number, follow) in follows {
            match follow.landed().await {
                Some(block) => blocks.push(block),
                None => left.push(number),
            }
        }
        if !left.is_empty() {
            blocks.extend(self.request(location, left, BTreeMap::new()).await?);
        }
        Ok(blocks)
    }

    /// Fetches the blocks that were claimed.
    async fn lead(self: Arc<Self>, location: Path, leads: Vec<Lead>) -> Result<Vec<Block>> {
        let mut leads: BTreeMap<u64, Lead> =
            leads.into_iter().map(|lead| (lead.number(), lead)).collect();
        let numbers = leads.keys().copied().collect();
        let mut blocks = read(&self.disk, &location, numbers).await;
        land(&mut leads, &blocks);
        let numbers = leads.keys().copied().collect();
        blocks.extend(self.request(&location, numbers, leads).await?);
        Ok(blocks)
    }

    /// Asks for these blocks, neighbours together, keeps them and lands the claims.
    async fn request(
        &self,
        location: &Path,
        numbers: Vec<u64>,
        mut leads: BTreeMap<u64, Lead>,
    ) -> Result<Vec<Block>> {
        let requests = block::runs(numbers).into_iter().map(|run| {
            let rest = leads.split_off(&run.end);
            let mine = std::mem::replace(&mut leads, rest);
            self.request_run(location, run, mine)
        });
        let requests: Vec<_> = requests.collect();
        let answers = stream::iter(requests).buffer_unordered(REQUESTS_MAX);
        Ok(answers.try_collect::<Vec<_>>().await?.concat())
    }

    async fn request_run(
        &self,
        location: &Path,
        run: Range<u64>,
        mut leads: BTreeMap<u64, Lead>,
    ) -> Result<Vec<Block>> {
        let start = run.start * BLOCK_BYTES;
        let range = start..run.end.saturating_mul(BLOCK_BYTES);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..Default::default() };
        let answer = self.inner.get_opts(location, options).await?;
        let (meta, came) = (answer.meta.clone(), answer.range.clone());
        let bytes = answer.bytes().await?;
        if came.start != start || came.end - came.start != bytes.len() as u64 {
            // A server that answers something else than it was asked. The caller asks it in turn.
            return Ok(Vec::new());
        }
        let blocks = Block::cut(&meta, run.start, &bytes);
        self.keep(location, &blocks).await;
        land(&mut leads, &blocks);
        Ok(blocks)
    }

    /// Fetches a whole object of which the first block was claimed.
    async fn lead_whole(self: Arc<Self>, location: Path, lead: Lead) -> Result<Whole> {
        let first = Blocks::of(read(&self.disk, &location, vec![0]).await);
        if let Some(block) = first.0.get(&0) {
            let size = block.meta.size;
            lead.land(block.clone());
            return self.rest(&location, size, first).await;
        }
        let answer = self.inner.get_opts(&location, GetOptions::default()).await?;
        if answer.meta.size > READ_BYTES_MAX || answer.meta.size == 0 {
            return Ok(Whole::Large(answer));
        }
        let meta = answer.meta.clone();
        let bytes = answer.bytes().await?;
        let blocks = Block::cut(&meta, 0, &bytes);
        self.keep(&location, &blocks).await;
        land(&mut BTreeMap::from([(0, lead)]), &blocks);
        Ok(Whole::Blocks(Blocks::of(blocks)))
    }

    /// Blocks on disk, counted.
    async fn look(&self, location: &Path, numbers: Vec<u64>) -> Blocks {
        let blocks = read(&self.disk, location, numbers).await;
        blocks.iter().for_each(|block| self.counters.found(block.bytes.len()));
        Blocks::of(blocks)
    }

    async fn keep(&self, location: &Path, blocks: &[Block]) {
        let (disk, counters) = (Arc::clone(&self.disk), Arc::clone(&self.counters));
        let (location, blocks) = (location.clone(), blocks.to_vec());
        let keep = move || {
            // The first block comes last: who finds it looks for the others at once.
            for block in blocks.iter().rev() {
                if disk.keep(&location, block) {
                    counters.stored(block.bytes.len());
                }
            }
        };
        // Whatever becomes of it, the blocks are there to be read.
        let _ = tokio::task::spawn_blocking(keep).await;
    }

    /// Drops what is kept of an object.
    pub(super) async fn forget(&self, location: &Path) {
        let (disk, location) = (Arc::clone(&self.disk), location.clone());
        let _ = tokio::task::spawn_blocking(move || disk.forget(&location)).await;
    }
}

/// Blocks that are on disk.
async fn read(disk: &Arc<Disk>, location: &Path, numbers: Vec<u64>) -> Vec<Block> {
    let (disk, location) = (Arc::clone(disk), location.clone());
    let read =
        move || numbers.into_iter().filter_map(|number| disk.read(&location, number)).collect();
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn land(leads: &mut BTreeMap<u64, Lead>, blocks: &[Block]) {
    for block in blocks {
        if let Some(lead) = leads.remove(&block.number) {
            lead.land(block.clone());
        }
    }
}

/// Stores say that a range lies beyond the end in their own words, and name the range.
fn may_lie_beyond_the_end(error: &Error) -> bool {
    matches!(error, Error::Generic { .. })
        && remote_error(error).is_none_or(|remote| remote.status() == Some(416))
}

/// Blocks of one object by their numbers.
#[derive(Debug, Default)]
pub(super) struct Blocks(BTreeMap<u64, Block>);

impl Blocks {
    fn of(blocks: Vec<Block>) -> Self {
        Self(blocks.into_iter().map(|block| (block.number, block)).collect())
    }

    fn add(&mut self, blocks: Vec<Block>) {
        self.0.extend(blocks.into_iter().map(|block| (block.number, block)));
    }

    fn meta(&self) -> Option<&ObjectMeta> {
        self.0.first_key_value().map(|(_, block)| &block.meta)
    }

    /// Whether all are of one and the same object.
    fn agree(&self) -> bool {
        let same = |block: &Block| {
            self.meta().is_some_and(|m| m.size == block.meta.size && m.e_tag == block.meta.e_tag)
        };
        self.0.values().all(same)
    }

    /// The bytes of a range, cut where the object ends; none if it begins beyond, or a block is
    /// missing.
    fn pieces(&self, range: &Range<u64>) -> Option<(Range<u64>, Vec<Bytes>)> {
        let size = self.meta()?.size;
        let range = range.start..range.end.min(size);
        if range.start >= range.end {
            return None;
        }
        let piece = |number: u64| {
            let bytes = &self.0.get(&number)?.bytes;
            let start = range.start.saturating_sub(number * BLOCK_BYTES);
            let end = (range.end - number * BLOCK_BYTES).min(bytes.len() as u64);
            Some(bytes.slice(usize::try_from(start).ok()?..usize::try_from(end).ok()?))
        };
        let touched = block::touched(std::slice::from_ref(&range));
        let pieces = touched.into_iter().map(piece).collect::<Option<Vec<_>>>()?;
        Some((range, pieces))
    }

    /// The bytes of a range in one piece.
    pub(super) fn bytes(&self, range: &Range<u64>) -> Option<Bytes> {
        let (range, pieces) = self.pieces(range)?;
        if let [piece] = pieces.as_slice() {
            return Some(piece.clone());
        }
        let mut bytes = BytesMut::with_capacity(usize::try_from(range.end - range.start).ok()?);
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        Some(bytes.freeze())
    }

    /// The answer to a read of a range, or of the whole object.
    pub(super) fn answer(&self, range: Option<&Range<u64>>) -> Option<GetResult> {
        let meta = self.meta()?.clone();
        let (range, pieces) = self.pieces(range.unwrap_or(&(0..meta.size)))?;
        let payload = GetResultPayload::Stream(stream::iter(pieces.into_iter().map(Ok)).boxed());
        Some(GetResult { payload, meta, range, attributes: Attributes::new() })
    }
}
