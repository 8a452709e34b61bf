//! Compaction in the background of whoever writes.
//!
//! The writer notes the series whose files it has added to. The lane plans a series when a few files
//! have come, and does what is due, one merge after the other; but while large files are written anew, which
//! takes long, those that come meanwhile are merged beside them. Where several write, all would merge the
//! same files: there, it is looked at by whoever lands one of so many commits.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join;
use tidelog_core::{FileId, NodeId};
use tidelog_oplog::Snapshot;
use tokio::sync::watch;

use super::plan::FAN_IN;
use super::throttle::Throttle;
use super::{CompactionOptions, Compactor, Ended, Found, PlannedJob};
use crate::commit::WeakWriter;
use crate::engine::Ground;
use crate::error::Error;

/// Where several write, who lands a commit whose number is a multiple looks at the series in it.
const COMMITS_OF_MANY: i64 = 64;
/// Who was too late so often in a row lets the others do it for so much longer.
const PATIENCE_MAX: u32 = 6;

/// The series to which files were added, and how many. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Touched {
    files: Arc<Mutex<HashMap<NodeId, Added>>>,
    news: watch::Sender<()>,
    /// The series whose files are being merged; sent again after each merge.
    settling: watch::Sender<Option<NodeId>>,
}

/// A series to which a file was added.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grown {
    pub(crate) node: NodeId,
    /// Whether it had no file before.
    pub(crate) is_new: bool,
}

/// Files that were added to a series.
#[derive(Debug, Clone, Copy)]
struct Added {
    files: usize,
    /// How many files the series had with the first of them, at most: where the log's rows of it are not in
    /// memory, it is taken to have enough.
    had: usize,
}

impl Touched {
    /// Notes that the commit which has made `snapshot` has added files to series, with so many others who write.
    pub(crate) fn add(
        &self,
        grown: impl Iterator<Item = Grown>,
        snapshot: &Snapshot,
        rivals: usize,
    ) {
        let count = match rivals {
            0 => 1,
            _ if snapshot.head().number() % COMMITS_OF_MANY == 0 => FAN_IN,
            _ => return,
        };
        let had = |series: Grown| match snapshot.loaded_series(series.node) {
            _ if series.is_new => 0,
            Some(state) => state.file_count(),
            None => FAN_IN,
        };
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut has_news = false;
        for series in grown {
            let new = || Added { files: 0, had: had(series) };
            files.entry(series.node).or_insert_with(new).files += count;
            has_news = true;
        }
        drop(files);
        if has_news {
            self.news.send_replace(());
        }
    }

    /// The series that were noted since the last call.
    pub(crate) fn take(&self) -> Vec<NodeId> {
        self.take_added().into_keys().collect()
    }

    /// Waits, `at_most` so long, while the files of a series are being merged that `is_deep` is true for.
    pub(crate) async fn shallow(&self, is_deep: impl Fn(NodeId) -> bool, at_most: Duration) {
        let mut settling = self.settling.subscribe();
        let shallow = settling.wait_for(|settling| !settling.is_some_and(&is_deep));
        // What takes longer to merge does not hold up appends for ever.
        let _ = tokio::time::timeout(at_most, shallow).await;
    }

    /// Says that the files of a series are being merged, as long as the answer is kept.
    pub(crate) fn settle(&self, node: NodeId) -> Settling {
        self.settling.send_replace(Some(node));
        Settling(self.settling.clone())
    }

    fn take_added(&self) -> HashMap<NodeId, Added> {
        std::mem::take(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The files of a series are being merged.
pub(crate) struct Settling(watch::Sender<Option<NodeId>>);

impl Settling {
    /// Files were merged.
    pub(crate) fn note_merge(&self) {
        self.0.send_modify(|_| ());
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

/// What the lane knows of a series.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// Files that were added since it was planned.
    files: usize,
    /// How often in a row others were faster.
    too_late: u32,
}

/// Starts the lane. It ends when the other end of `ended` is dropped.
pub(crate) fn spawn(
    ground: &Ground,
    options: &CompactionOptions,
    touched: &Touched,
    writer: WeakWriter,
    ended: watch::Receiver<()>,
) {
    if !options.in_background {
        return;
    }
    let compactor = Compactor::new(ground, options, Throttle::new(options.bytes_per_second));
    let news = touched.news.subscribe();
    tokio::spawn(until(ended, run(compactor, touched.clone(), news, writer)));
}

/// Runs something until the writer has ended. What was under way is left: nothing names it.
async fn until(mut ended: watch::Receiver<()>, lane: impl Future<Output = ()>) {
    tokio::select! {
        // Nothing is ever sent.
        _ = ended.changed() => {}
        () = lane => {}
    }
}

async fn run(
    compactor: Compactor,
    touched: Touched,
    mut news: watch::Receiver<()>,
    writer: WeakWriter,
) {
    let mut waiting: HashMap<NodeId, Waiting> = HashMap::new();
    while news.changed().await.is_ok() {
        for (node, added) in touched.take_added() {
            // Of a series that is new here any of its files may wait.
            let known = waiting.entry(node).or_insert(Waiting { files: added.had, too_late: 0 });
            known.files += added.files;
            if known.files < FAN_IN << known.too_late {
                continue;
            }
            known.files = 0;
            let too_late = known.too_late;
            let settling = touched.settle(node);
            let lane = Lane { compactor: &compactor, writer: &writer, node, settling, news: &news };
            let too_late = lane.settle(too_late).await;
            if let Some(known) = waiting.get_mut(&node) {
                known.too_late = too_late;
            }
        }
    }
}

/// A series whose files are being merged.
struct Lane<'a> {
    compactor: &'a Compactor,
    writer: &'a WeakWriter,
    node: NodeId,
    settling: Settling,
    /// Files were added to some series.
    news: &'a watch::Receiver<()>,
}

impl Lane<'_> {
    /// Does all that is due in the series; how often in a row others were faster.
    async fn settle(&self, mut too_late: u32) -> u32 {
        loop {
            match self.step().await {
                Ok(None) => return too_late,
                Ok(Some(Ended::Merged(_))) => too_late = 0,
                Ok(Some(Ended::GivenUp)) => return (too_late + 1).min(PATIENCE_MAX),
                Err(error) => {
                    tracing::warn!(%error, "merging files failed; it is tried again");
                    return (too_late + 1).min(PATIENCE_MAX);
                }
            }
        }
    }

    /// Does one thing that is due, and meanwhile, unless it is quick, what keeps few files over one instant.
    async fn step(&self) -> Result<Option<Ended>, Error> {
        let Some((found, job)) = self.compactor.due(self.node).await? else { return Ok(None) };
        if job.is_quick(self.compactor.options.target_bytes) {
            return self.merge(&found, job).await.map(Some);
        }
        let (busy, is_done) = (job.files(), watch::Sender::new(false));
        let merging = async {
            let ended = self.merge(&found, job).await;
            is_done.send_replace(true);
            ended
        };
        // A merge that has begun is not left half done.
        let (ended, ()) = join(merging, self.stay_shallow(&busy, is_done.subscribe())).await;
        ended.map(Some)
    }

    async fn merge(&self, found: &Found, job: PlannedJob) -> Result<Ended, Error> {
        let ended = self.compactor.merge(self.writer, found, job).await?;
        if let Ended::Merged(_) = ended {
            self.settling.note_merge();
        }
        Ok(ended)
    }

    /// Merges files that lie over one instant as they come, but for `busy` ones, until something is done.
    async fn stay_shallow(&self, busy: &HashSet<FileId>, mut is_done: watch::Receiver<bool>) {
        let mut news = self.news.clone();
        while !*is_done.borrow() {
            match self.compactor.due_beside(self.node, busy).await {
                Ok(Some((found, job))) => match self.merge(&found, job).await {
                    Ok(Ended::Merged(_)) => continue,
                    Ok(Ended::GivenUp) => {}
                    Err(error) => tracing::warn!(%error, "merging files failed; it is tried again"),
                },
                Ok(None) => {}
                // Told where what is due is looked for.
                Err(_) => return,
            }
            tokio::select! {
                // Whoever adds files has gone: nothing is added any more.
                changed = news.changed() => if changed.is_err() { return },
                _ = is_done.changed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::FutureExt;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn who_makes_a_series_deep_waits_until_merges_have_made_it_shallow() {
        let [one, other] = [1, 2].map(|number| NodeId::from_uuid(Uuid::from_u128(number)));
        let touched = Touched::default();
        let deep = Cell::new(true);
        let wait_for = |node| touched.shallow(move |asked| asked == node, Duration::MAX);
        assert!(wait_for(one).now_or_never().is_some(), "nothing is merged");
        let settling = touched.settle(one);
        assert!(wait_for(other).now_or_never().is_some(), "another series is merged");
        let is_deep = |node| node == one && deep.get();
        let mut waiting = Box::pin(touched.shallow(is_deep, Duration::MAX));
        assert!((&mut waiting).now_or_never().is_none());
        settling.note_merge();
        assert!((&mut waiting).now_or_never().is_none(), "it is still deep");
        deep.set(false);
        settling.note_merge();
        waiting.await;
        touched.shallow(|_| true, Duration::from_millis(1)).await;
        let waiting = wait_for(one);
        drop(settling);
        waiting.await;
    }
}
