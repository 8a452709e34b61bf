//! How much of a store is where, as its writer says itself or as others see it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidelog_core::WriteTime;
use tidelog_oplog::Epoch;

use crate::engine::Engine;
use crate::error::Error;
use crate::owner::{TierOptions, TierStatistics, gauge};
use crate::warm::WarmStatistics;

/// Who has a store for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TierOwner {
    /// Nobody: any number of processes may write.
    Nobody,
    /// This handle.
    ThisHandle,
    /// Another handle, of this process or another one, which lives.
    Living(Arc<Epoch>),
    /// One that has died. Whoever writes next on this machine brings in what it has left.
    Dead(Arc<Epoch>),
    /// One whose write-ahead log is not here, so that nothing tells whether it lives.
    Elsewhere(Arc<Epoch>),
}

impl fmt::Display for TierOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::ThisHandle => f.write_str("this handle"),
            Self::Living(epoch) => write!(f, "{epoch}"),
            Self::Dead(epoch) => write!(f, "dead: {epoch}"),
            Self::Elsewhere(epoch) => write!(f, "not to be seen from here: {epoch}"),
        }
    }
}

/// The tiers above the files of a store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tiers {
    /// Who has the store for itself.
    pub owner: TierOwner,
    /// Its numbers; `None` if it has published none that can be seen here.
    pub statistics: Option<TierStatistics>,
    /// How much is warm: in this handle, if anything ever was; otherwise in that of the owner. `None` if nothing
    /// is known of either.
    pub warm: Option<WarmStatistics>,
    /// When the numbers were read.
    pub as_of: Option<WriteTime>,
    /// How long ago that was.
    pub age: Duration,
}

impl Tiers {
    fn without_numbers(owner: TierOwner) -> Self {
        Self { owner, statistics: None, warm: None, as_of: None, age: Duration::ZERO }
    }
}

impl Engine {
    /// How much is in memory and in the write-ahead log: of this handle at this moment, or else as
    /// the process says that has the store for itself, once a second.
    ///
    /// # Errors
    /// If the log of the store cannot be read.
    pub async fn tiers_seen(&self) -> Result<Tiers, Error> {
        if let Some(statistics) = self.tiers() {
            let (owner, as_of) = (TierOwner::ThisHandle, Some(self.env().clock.now()));
            let (statistics, warm) = (Some(statistics), Some(self.warm().stats()));
            return Ok(Tiers { owner, statistics, warm, as_of, age: Duration::ZERO });
        }
        let seen = self.tiers_of_others().await?;
        Ok(match self.warm().is_open() {
            true => Tiers { warm: Some(self.warm().stats()), ..seen },
            false => seen,
        })
    }

    /// As the process says that has the store for itself.
    async fn tiers_of_others(&self) -> Result<Tiers, Error> {
        let snapshot = self.log().refresh().await?;
        let Some(epoch) = snapshot.epoch().cloned() else {
            return Ok(Tiers::without_numbers(TierOwner::Nobody));
        };
        let (options, env) = (self.tier_options().clone(), self.env().clone());
        let seen = tokio::task::spawn_blocking(move || {
            let Some(directory) = options.wal_directory.as_deref() else {
                return Tiers::without_numbers(TierOwner::Elsewhere(epoch));
            };
            let found = gauge::read(options.file_system.as_ref(), directory, epoch.id);
            let owner = owner_of(&options, directory, epoch);
            Tiers {
                owner,
                statistics: found.as_ref().map(|gauge| gauge.statistics),
                warm: found.as_ref().and_then(|gauge| gauge.warm.clone()),
                as_of: found.as_ref().map(gauge::Gauge::written),
                age: found.map(|gauge| gauge.age(&env)).unwrap_or_default(),
            }
        });
        seen.await.map_err(|_| Error::Closed)
    }
}

fn owner_of(options: &TierOptions, directory: &Path, epoch: Arc<Epoch>) -> TierOwner {
    let fs = options.file_system.as_ref();
    match (tidelog_wal::is_locked(fs, directory), tidelog_wal::log_id(fs, directory)) {
        (Ok(Some(_)), Ok(id)) if id == epoch.wal => TierOwner::Living(epoch),
        (Ok(None), Ok(id)) if id == epoch.wal => TierOwner::Dead(epoch),
        _ => TierOwner::Elsewhere(epoch),
    }
}
