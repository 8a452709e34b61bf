//! Recent files kept warm, off the way of reads and writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tidelog_core::{CommitVersion, EventTime, NodeId, TimeRange, TreePath};
use tidelog_oplog::{EntryType, SeriesState};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::WarmKeep;
use super::fill::{Filling, Wanted};
use crate::engine::{Ground, schema_of};
use crate::error::Error;
use crate::head::Head;

/// Keeps recent files warm, from the first state that a handle sees on. Dropped, it stops.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    task: JoinHandle<()>,
    next: Arc<Next>,
}

/// What is to be looked at next.
#[derive(Debug, Default)]
struct Next {
    seen: Mutex<Seen>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    newest: Option<CommitVersion>,
    /// The state after that commit, if nobody has looked at it. It is not kept longer, because that keeps a
    /// vacuum from what it needs.
    head: Option<Head>,
}

impl Next {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, head: &Head) {
        let commit = head.snapshot().head();
        let mut seen = self.lock();
        if seen.newest.is_none_or(|newest| newest < commit) {
            *seen = Seen { newest: Some(commit), head: Some(head.clone()) };
            self.news.notify_one();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// A handle has seen this state: what is new in it is made warm soon, if the options say so.
    pub(crate) fn seen(&self, ground: &Ground, head: &Head) {
        let WarmKeep::Recent(_) = ground.warm.keep() else { return };
        if !ground.warm.is_on() {
            return;
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_ref().filter(|running| !running.task.is_finished()) {
            return running.next.see(head);
        }
        // The first time, or the runtime of the task has ended.
        let next = Arc::new(Next::default());
        next.see(head);
        let task = tokio::spawn(run(ground.clone(), Arc::clone(&next)));
        *running = Some(Running { task, next });
    }
}

async fn run(ground: Ground, next: Arc<Next>) {
    let mut looked_at = LookedAt::default();
    loop {
        next.news.notified().await;
        let Some(head) = next.lock().head.take() else { continue };
        let WarmKeep::Recent(age) = ground.warm.keep() else { continue };
        if let Err(error) = look(&ground, &head, age, &mut looked_at).await {
            tracing::warn!(%error, "recent files were not made warm; it is tried again");
        }
    }
}

/// The states of series whose recent files are warm, as far as they fit.
type LookedAt = HashMap<NodeId, Weak<SeriesState>>;

/// Makes the recent files of all series warm that have changed, the newest of all first.
async fn look(
    ground: &Ground,
    head: &Head,
    age: Duration,
    looked_at: &mut LookedAt,
) -> Result<(), Error> {
    let mut wanted = Vec::new();
    let mut seen = LookedAt::new();
    for (path, node) in head.tree().walk(&TreePath::root()) {
        if node.entry != EntryType::FileSeries {
            continue;
        }
        let Some(schema) = schema_of(&path, &node)? else { continue };
        let state = head.committed(&ground.log, node.id).await?;
        seen.insert(node.id, Arc::downgrade(&state));
        let known = looked_at.get(&node.id).map(Weak::as_ptr);
        if known.is_some_and(|known| std::ptr::eq(known, Arc::as_ptr(&state))) {
            continue;
        }
        let Some(range) = recent(&state, head.hot_range(node.id), age) else { continue };
        let files = state.files_overlapping(range).cloned().collect();
        wanted.push(Wanted { path, schema, commit: head.snapshot().head(), files });
    }
    let mut filling = Filling::new(&ground.warm, &ground.files);
    filling.take(wanted).await?;
    let fill = filling.finish();
    tracing::debug!(files = fill.files, rows = fill.rows, "recent files were made warm");
    *looked_at = seen;
    Ok(())
}

/// The event times that are recent in a series; `None` if it has no file.
fn recent(state: &SeriesState, hot: Option<TimeRange>, age: Duration) -> Option<TimeRange> {
    let newest = state.files().map(|file| file.range).chain(hot).map(|range| range.end()).max()?;
    let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
    let oldest = EventTime::from_nanos(newest.nanos().saturating_sub(age));
    TimeRange::try_new(oldest, EventTime::MAX).ok()
}
