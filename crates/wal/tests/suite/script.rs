//! A run of calls on a log, with a plain list beside it that says what must be there afterwards.

use tidelog_testkit::SimFileSystem;
use tidelog_wal::{Error, Payload, Wal};

use crate::support::{Rows, Shape, bytes_of, open, payload_of, rows};

/// One call.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Payloads of these lengths.
    Append(Vec<usize>),
    Sync,
    Rotate,
    /// All but so many of the newest records.
    Release(u64),
    /// So many numbers.
    Skip(u64),
    Reopen,
}

/// What a log must hold, and may hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    /// Acknowledged: appended and synced.
    pub(crate) acked: Rows,
    /// Appended and not synced, then what an append tried that did not return `Ok`. A prefix of it may
    /// be there.
    pub(crate) doubtful: Rows,
    /// What may have been released.
    pub(crate) released: u64,
    /// The lowest number that may come next.
    pub(crate) next_min: u64,
}

impl Ledger {
    /// What is wrong with `found`, if something is.
    pub(crate) fn check(&self, found: &Rows, next_seq: u64) -> Result<(), String> {
        let kept = |rows: &Rows| -> Rows {
            rows.iter().filter(|(seq, _)| *seq > self.released).cloned().collect()
        };
        let older = found.len() - kept(found).len();
        let released: Rows =
            self.acked.iter().filter(|(seq, _)| *seq <= self.released).cloned().collect();
        if !released.ends_with(&found[..older]) {
            return Err(format!("released records came back wrong: {}", say(&found[..older])));
        }
        let (must, have) = (kept(&self.acked), kept(found));
        let Some(more) = have.strip_prefix(must.as_slice()) else {
            return Err(format!("acknowledged {} and found {}", say(&must), say(&have)));
        };
        if !self.doubtful.starts_with(more) {
            return Err(format!("found {} that was never appended so", say(more)));
        }
        let last = have.last().map_or(0, |(seq, _)| *seq).max(self.released_acked());
        if next_seq <= last || next_seq < self.next_min {
            return Err(format!("{next_seq} comes next, after {last} and not before {self:?}"));
        }
        Ok(())
    }

    fn released_acked(&self) -> u64 {
        self.acked.last().map_or(0, |(seq, _)| *seq)
    }

    /// Everything that was found counts as acknowledged from now on.
    pub(crate) fn settled(&self, found: Rows, next_seq: u64) -> Self {
        let oldest = found.first().map_or(next_seq, |(seq, _)| *seq);
        let mut acked: Rows = self.acked.iter().filter(|(seq, _)| *seq < oldest).cloned().collect();
        acked.extend(found);
        Self { acked, doubtful: Vec::new(), released: self.released, next_min: next_seq }
    }
}

fn say(rows: &[(u64, Vec<u8>)]) -> String {
    let rows: Vec<String> =
        rows.iter().map(|(seq, bytes)| format!("{seq}: {} bytes", bytes.len())).collect();
    format!("{rows:?}")
}

/// A log, its disk and its ledger.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) fs: SimFileSystem,
    pub(crate) shape: Shape,
    pub(crate) wal: Option<Wal>,
    pub(crate) ledger: Ledger,
    pub(crate) tag: u64,
}

impl Driver {
    pub(crate) fn new(fs: SimFileSystem, shape: impl Into<Shape>) -> Self {
        Self { fs, shape: shape.into(), wal: None, ledger: Ledger::default(), tag: 0 }
    }

    /// Opens the log and goes through the steps to the first error.
    pub(crate) fn run(&mut self, steps: &[Step]) -> Result<(), Error> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<(), Error> {
        if let Step::Reopen = step {
            self.wal = None;
        }
        let mut wal = match self.wal.take() {
            Some(wal) => wal,
            None => self.reopen()?,
        };
        let result = self.apply(&mut wal, step);
        self.take_at_its_word(&wal);
        self.wal = Some(wal);
        result
    }

    /// Opens the log; an error if what is there is not what must be.
    fn reopen(&mut self) -> Result<Wal, Error> {
        let wal = open(&self.fs, self.shape)?;
        let found = rows(&wal)?;
        let checked = self.ledger.check(&found, wal.next_seq());
        checked.unwrap_or_else(|wrong| panic!("{wrong}"));
        self.ledger = self.ledger.settled(found, wal.next_seq());
        Ok(wal)
    }

    fn apply(&mut self, wal: &mut Wal, step: &Step) -> Result<(), Error> {
        match step {
            Step::Reopen => Ok(()),
            Step::Append(lengths) => self.append(wal, lengths),
            Step::Sync => {
                wal.sync()?;
                assert_eq!(wal.durable_seq() + 1, wal.next_seq());
                Ok(())
            }
            Step::Rotate => wal.rotate(),
            Step::Release(keep) => {
                self.take_at_its_word(wal);
                let through = wal.durable_seq().saturating_sub(*keep);
                self.ledger.released = self.ledger.released.max(through);
                wal.release(through).map(|_| ())
            }
            Step::Skip(numbers) => wal.skip_to(wal.next_seq() + numbers),
        }
    }

    /// What the log says is durable counts as acknowledged.
    fn take_at_its_word(&mut self, wal: &Wal) {
        let durable = self.ledger.doubtful.partition_point(|(seq, _)| *seq <= wal.durable_seq());
        self.ledger.acked.extend(self.ledger.doubtful.drain(..durable));
        self.ledger.next_min = self.ledger.next_min.max(wal.durable_seq() + 1);
    }

    fn append(&mut self, wal: &mut Wal, lengths: &[usize]) -> Result<(), Error> {
        let first = wal.next_seq();
        let tried: Vec<(u64, usize)> = lengths.iter().map(|length| (self.tag(), *length)).collect();
        let payloads: Vec<Payload> =
            tried.iter().map(|(tag, len)| payload_of(*tag, *len)).collect();
        let bytes = tried.iter().map(|(tag, length)| bytes_of(*tag, *length));
        let before = self.ledger.doubtful.len();
        self.ledger.doubtful.extend((first..).zip(bytes));
        match wal.append(&payloads) {
            Ok(appended) => {
                assert_eq!((appended.first_seq, appended.last_seq + 1), (first, wal.next_seq()));
                Ok(())
            }
            Err(error) => {
                // These say that nothing of it is there, or will be.
                if matches!(error, Error::NotApplied { .. } | Error::Failed { .. }) {
                    self.ledger.doubtful.truncate(before);
                }
                Err(error)
            }
        }
    }

    fn tag(&mut self) -> u64 {
        self.tag += 1;
        self.tag
    }
}

/// Every kind of call, with segments begun, released and skipped to. For segments of 1,500 bytes.
pub(crate) fn fixed() -> Vec<Step> {
    use Step::{Append, Release, Reopen, Rotate, Skip, Sync};
    vec![
        Append(vec![5]),
        Sync,
        Append(vec![300, 0, 700]),
        Sync,
        Append(vec![600]),
        Sync,
        Append(vec![100]),
        Append(vec![30, 40]),
        Sync,
        Append(vec![1000]),
        Sync,
        Release(2),
        Append(vec![900]),
        Append(vec![20]),
        Reopen,
        Append(vec![10]),
        Sync,
        Rotate,
        Release(0),
        Append(vec![50]),
        Sync,
        Skip(10),
        Append(vec![60]),
        Append(vec![2000]),
        Release(1),
        Sync,
        Append(vec![70, 80]),
    ]
}
