//! What files and names are on the disk, and what a power cut may leave of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The blocks in which a disk may write.
const BLOCKS: [usize; 2] = [512, 4096];

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What a reader sees.
    pub(super) content: Vec<u8>,
    /// What is on the disk for certain.
    pub(super) durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Clone)]
struct Pending {
    change: Change,
    /// A sync of it has failed: no later one brings it to the disk.
    given_up: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Cut(usize),
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Add { path: PathBuf, inode: usize },
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, inode: usize },
    MakeDirectory { path: PathBuf },
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Cut(length) => content.resize(*length, 0),
        }
    }
}

impl Pending {
    /// What a later change that is durable leaves of this one.
    fn left_by(&self, later: &Change) -> Vec<Self> {
        let part = |offset: usize, bytes: &[u8]| {
            let change = Change::Write { offset, bytes: bytes.to_vec() };
            (!bytes.is_empty()).then_some(Self { change, given_up: self.given_up })
        };
        let (start, end) = match later {
            Change::Write { offset, bytes } => (*offset, offset + bytes.len()),
            Change::Cut(length) => (*length, usize::MAX),
        };
        match &self.change {
            Change::Cut(length) if end > *length => Vec::new(),
            Change::Cut(_) => vec![self.clone()],
            Change::Write { offset, bytes } => {
                let before = start.saturating_sub(*offset).min(bytes.len());
                let after = end.saturating_sub(*offset).min(bytes.len());
                let parts =
                    [part(*offset, &bytes[..before]), part(offset + after, &bytes[after..])];
                parts.into_iter().flatten().collect()
            }
        }
    }
}

impl NameChange {
    pub(super) fn directory(&self) -> &Path {
        let (Self::Add { path, .. }
        | Self::Remove { path }
        | Self::Rename { to: path, .. }
        | Self::MakeDirectory { path }) = self;
        path.parent().unwrap_or(Path::new("/"))
    }

    pub(super) fn apply(
        self,
        names: &mut BTreeMap<PathBuf, usize>,
        directories: &mut BTreeSet<PathBuf>,
    ) {
        match self {
            Self::Add { path, inode } => {
                names.insert(path, inode);
            }
            Self::Remove { path } => {
                names.remove(&path);
            }
            Self::Rename { from, to, inode } => {
                names.remove(&from);
                names.insert(to, inode);
            }
            Self::MakeDirectory { path } => {
                directories.insert(path);
            }
        }
    }
}

impl Inode {
    /// A file that is on the disk.
    pub(super) fn new(content: Vec<u8>) -> Self {
        Self { durable: content.clone(), content, pending: Vec::new() }
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.content);
        self.pending.push(Pending { change, given_up: false });
    }

    pub(super) fn sync(&mut self) {
        let mut given_up: Vec<Pending> = Vec::new();
        for pending in self.pending.drain(..) {
            if pending.given_up {
                given_up.push(pending);
                continue;
            }
            pending.change.apply(&mut self.durable);
            given_up = given_up.iter().flat_map(|old| old.left_by(&pending.change)).collect();
        }
        self.pending = given_up;
    }

    pub(super) fn fail_sync(&mut self) {
        self.pending.iter_mut().for_each(|pending| pending.given_up = true);
    }

    /// What a power cut leaves.
    pub(super) fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Vec<u8> {
        if self.pending.is_empty() {
            return self.durable.clone();
        }
        let live = self.pending.iter().filter(|pending| !pending.given_up).count();
        let mut whole = choose(live + 1);
        let (mut image, mut base) = (self.durable.clone(), self.durable.clone());
        let mut written = Vec::new();
        for pending in &self.pending {
            let applied = if pending.given_up {
                (choose(2) == 1).then(|| pending.change.clone())
            } else if whole > 0 {
                whole -= 1;
                Some(pending.change.clone())
            } else {
                let torn = torn(&pending.change, image.len(), choose);
                note(torn.as_ref(), &mut image, &mut base, &mut written);
                break;
            };
            note(applied.as_ref(), &mut image, &mut base, &mut written);
        }
        lose_a_block(&mut image, &base, &written, choose);
        image
    }
}

fn note(
    change: Option<&Change>,
    image: &mut Vec<u8>,
    base: &mut Vec<u8>,
    written: &mut Vec<(usize, usize)>,
) {
    let Some(change) = change else { return };
    change.apply(image);
    match change {
        Change::Write { offset, bytes } => written.push((*offset, offset + bytes.len())),
        Change::Cut(length) => base.truncate(*length),
    }
}

/// Part of a change to a file of `length` bytes that was under way.
fn torn(change: &Change, length: usize, choose: &mut dyn FnMut(usize) -> usize) -> Option<Change> {
    let Change::Write { offset, bytes } = change else { return None };
    let mut lengths = BTreeSet::from([1, bytes.len() / 2, bytes.len().saturating_sub(1)]);
    lengths.extend((1..=bytes.len()).filter(|length| (offset + length) % BLOCKS[0] == 0));
    lengths.retain(|length| *length > 0 && *length < bytes.len());
    let lengths: Vec<usize> = lengths.into_iter().collect();
    match choose(lengths.len() + 2) {
        0 => None,
        // Zeros are what a longer file reads as where nothing was written yet.
        1 => {
            let start = length.max(*offset);
            let zeros = vec![0; (offset + bytes.len()).saturating_sub(start)];
            Some(Change::Write { offset: start, bytes: zeros })
        }
        cut => Some(Change::Write { offset: *offset, bytes: bytes[..lengths[cut - 2]].to_vec() }),
    }
}

/// Puts back what was on the disk before, in one block or none.
fn lose_a_block(
    image: &mut [u8],
    base: &[u8],
    written: &[(usize, usize)],
    choose: &mut dyn FnMut(usize) -> usize,
) {
    let mut blocks = BTreeSet::new();
    for size in BLOCKS {
        for (start, end) in written.iter().filter(|(start, end)| start < end) {
            blocks.extend((start / size..=(end - 1) / size).map(|block| (size, block)));
        }
    }
    let choice = choose(blocks.len() + 1);
    let Some((size, block)) = choice.checked_sub(1).and_then(|at| blocks.iter().nth(at)) else {
        return;
    };
    let lost = block * size..(block + 1) * size;
    for (start, end) in written {
        for at in (*start).max(lost.start)..(*end).min(lost.end).min(image.len()) {
            image[at] = base.get(at).copied().unwrap_or(0);
        }
    }
}
