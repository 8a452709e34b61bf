//! The numbers of an owner, for other processes to look at.
//!
//! They lie in a small file beside the lock of the log ahead, which is replaced once a second and never
//! synced: it is a gauge and no data. Where it cannot be written the store goes on without.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidelog_core::{Env, WriteTime};
use tidelog_storage::FileSystem;
use uuid::Uuid;

use super::TierStatistics;
use super::shared::Shared;
use crate::warm::{WarmStatistics, WarmTier};

const FILE: &str = "tiers.json";
const STAGED: &str = "tiers.json.new";
const INTERVAL: Duration = Duration::from_secs(1);
const BYTES_MAX: usize = 16 * 1024;

/// What the file holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Gauge {
    /// The claim of the store that the numbers are of.
    epoch: Uuid,
    /// When they were read, in microseconds since 1970.
    written_us: i64,
    pub(crate) statistics: TierStatistics,
    #[serde(default)]
    pub(crate) warm: Option<WarmStatistics>,
}

impl Gauge {
    /// How long ago the numbers were read; zero if the clocks of the two processes disagree.
    pub(crate) fn age(&self, env: &Env) -> Duration {
        let micros = env.clock.now().micros().saturating_sub(self.written_us);
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
    }

    /// When they were read.
    pub(crate) fn written(&self) -> WriteTime {
        WriteTime::from_micros(self.written_us)
    }
}

/// Publishes the numbers of `shared` in `directory`, until it is aborted.
pub(crate) async fn publish(shared: Arc<Shared>, warm: WarmTier, epoch: Uuid, directory: PathBuf) {
    loop {
        let (from, warm, directory) = (Arc::clone(&shared), warm.clone(), directory.clone());
        let write = move || write(&from, &warm, epoch, &directory);
        let written = tokio::task::spawn_blocking(write).await;
        if let Ok(Err(error)) = written {
            tracing::debug!(%error, "the numbers of the tiers were not published");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn write(shared: &Shared, warm: &WarmTier, epoch: Uuid, directory: &Path) -> io::Result<()> {
    let written_us = shared.env.clock.now().micros();
    let (statistics, warm) = (shared.statistics(), Some(warm.stats()));
    let gauge = Gauge { epoch, written_us, statistics, warm };
    let bytes = Bytes::from(serde_json::to_vec(&gauge)?);
    let fs = shared.options.file_system.as_ref();
    let staged = directory.join(STAGED);
    remove_if_there(fs, &staged)?;
    fs.create_append(&staged)?.append(&[bytes])?;
    // A reader sees the old numbers or the new ones.
    fs.rename(&staged, &directory.join(FILE))
}

fn remove_if_there(fs: &dyn FileSystem, file: &Path) -> io::Result<()> {
    match fs.remove(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the numbers of an owner that gives the store back.
pub(crate) fn remove(fs: &dyn FileSystem, directory: &Path) {
    for name in [STAGED, FILE] {
        if let Err(error) = remove_if_there(fs, &directory.join(name)) {
            tracing::debug!(%error, "the numbers of the tiers were not removed");
        }
    }
}

/// The numbers that the owner with the claim `epoch` has published last, if it has.
pub(crate) fn read(fs: &dyn FileSystem, directory: &Path, epoch: Uuid) -> Option<Gauge> {
    let mut bytes = vec![0; BYTES_MAX];
    let file = fs.open_read(&directory.join(FILE)).ok()?;
    let count = file.read_at(0, &mut bytes).ok()?;
    let gauge: Gauge = serde_json::from_slice(bytes.get(..count)?).ok()?;
    (gauge.epoch == epoch).then_some(gauge)
}
