//! Changes while a store is open.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tidelog_query::Queries;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::table::{ChangeableWhen, SETTINGS};
use super::{Layers, Loaded, Settings};
use crate::error::Result;
use crate::store::Store;

/// A setting that is another now than when it was last applied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingChange {
    /// Its name.
    pub name: &'static str,
    /// What holds in the open store, or held until now; `None` if that is no fixed value.
    pub old: Option<String>,
    /// What the layers say now.
    pub new: Option<String>,
}

impl std::fmt::Display for SettingChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        write!(f, "{}: {} → {}", self.name, shown(&self.old), shown(&self.new))
    }
}

/// What became of changed settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// These have their effect now.
    pub applied: Vec<SettingChange>,
    /// These have their effect when the store is opened again.
    pub need_restart: Vec<SettingChange>,
    /// These are never changed under way: where things lie, what was promised to appends, and what
    /// is fixed when a store is made. The store goes on with the old values.
    pub refused: Vec<SettingChange>,
}

impl Reloaded {
    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.need_restart.is_empty() && self.refused.is_empty()
    }
}

/// The settings of an open store, and where they came from.
#[derive(Debug)]
pub(crate) struct LiveSettings {
    layers: Layers,
    /// Those that hold.
    current: Mutex<Settings>,
}

impl LiveSettings {
    pub(crate) fn new(layers: Layers, settings: Settings) -> Self {
        Self { layers, current: Mutex::new(settings) }
    }

    pub(crate) fn current(&self) -> Settings {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Settings> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads all layers anew and applies what may change while the store is open.
    pub(crate) async fn reload(&self, queries: &Queries) -> Result<Reloaded> {
        let Loaded { settings: new, .. } = self.layers.load().await?;
        let mut current = self.lock();
        let mut reloaded = Reloaded::default();
        for setting in SETTINGS {
            let (was, is) = (current.value(setting.name), new.value(setting.name));
            if was == is {
                continue;
            }
            let into = match setting.changeable {
                ChangeableWhen::Running => &mut reloaded.applied,
                ChangeableWhen::Reopened => &mut reloaded.need_restart,
                ChangeableWhen::Never => &mut reloaded.refused,
            };
            into.push(SettingChange { name: setting.name, old: was, new: is });
        }
        apply(queries, &mut current, &new);
        Ok(reloaded)
    }

    /// The files that may say something, with what tells that one has changed.
    async fn stamp(&self) -> Stamp {
        let location = self.current().store;
        let mut stamp = Vec::new();
        for file in self.layers.files(location.as_deref()) {
            let metadata = tokio::fs::metadata(&file).await.ok();
            let facts = metadata.map(|found| (found.modified().ok(), found.len()));
            stamp.push((file, facts));
        }
        stamp
    }
}

type Stamp = Vec<(PathBuf, Option<(Option<SystemTime>, u64)>)>;

/// Applies the settings that the table says may change while a store is open.
fn apply(queries: &Queries, current: &mut Settings, new: &Settings) {
    current.preset = new.preset;
    current.hot_max_rows = new.hot_max_rows;
    current.hot_max_bytes = new.hot_max_bytes;
    current.hot_max_age = new.hot_max_age;
    current.wal_max_bytes = new.wal_max_bytes;
    current.partitions = new.partitions;
    current.max_staleness = new.max_staleness;
    current.warm_keep = new.warm_keep;
    let mut limits = queries.engine().tier_limits();
    limits.rows_max = new.hot_max_rows;
    limits.bytes_max = new.hot_max_bytes;
    limits.age_max = new.hot_max_age;
    limits.wal_bytes_max = new.wal_max_bytes;
    queries.engine().set_tier_limits(limits);
    queries.engine().set_max_staleness(new.max_staleness);
    queries.engine().warm().set_keep(new.warm_keep);
    queries.set_partitions(new.partitions);
}

/// Watches a store's file of settings and applies what changes in it, until it is dropped. It holds
/// the store open.
#[derive(Debug)]
#[must_use = "dropped, it watches no more"]
pub struct ConfigWatch {
    task: AbortHandle,
    outcomes: watch::Receiver<Option<Result<Reloaded>>>,
}

impl Drop for ConfigWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ConfigWatch {
    pub(crate) fn start(store: Store, settings: Arc<LiveSettings>, interval: Duration) -> Self {
        let (sender, outcomes) = watch::channel(None);
        let task = tokio::spawn(follow(store, settings, interval, sender)).abort_handle();
        Self { task, outcomes }
    }

    /// Waits for the next change of the file and tells what became of it, or why the file cannot be
    /// used; then all settings stay as they were. Of changes that come faster than they are asked
    /// for, the last is told. May be dropped and called again.
    pub async fn changed(&mut self) -> Result<Reloaded> {
        // The sender lives as long as the task, which ends only with this watch or the runtime.
        while self.outcomes.changed().await.is_ok() {
            if let Some(outcome) = self.outcomes.borrow_and_update().clone() {
                return outcome;
            }
        }
        std::future::pending().await
    }
}

async fn follow(
    store: Store,
    settings: Arc<LiveSettings>,
    interval: Duration,
    outcomes: watch::Sender<Option<Result<Reloaded>>>,
) {
    let mut applied = settings.stamp().await;
    let mut seen = applied.clone();
    loop {
        tokio::time::sleep(interval).await;
        let found = settings.stamp().await;
        // Whoever writes a file in steps is not read between them: it must have been still for once.
        let is_still = found == seen;
        seen = found;
        if !is_still || seen == applied {
            continue;
        }
        applied = seen.clone();
        let outcome = store.reload_config().await;
        match &outcome {
            Ok(reloaded) => tracing::info!(?reloaded, "the settings have changed"),
            Err(error) => tracing::warn!(%error, "the changed settings cannot be used"),
        }
        outcomes.send_replace(Some(outcome));
    }
}
