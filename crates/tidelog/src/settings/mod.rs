//! All that a user can set, and the layers that it comes from.
//!
//! ```text
//! defaults ─▶ the program's defaults ─▶ preset ─▶ file ─▶ environment ─▶ flags, calls of the builder
//! ```
//!
//! A later layer wins, setting by setting. `docs/configuration.md` lists the settings.
//!
//! | module | holds |
//! |---|---|
//! | `values` | sizes, times and numbers as people write them |
//! | `table` | of each setting: what it takes, its default, when it may change |
//! | `preset` | numbers that go together |
//! | `file` | `tidelog.toml` and `tidelog.json`, with the lines of what they say |
//! | `layers` | reading all layers, and who has said what |
//! | `live` | changes while a store is open |
//! | `error` | what is wrong, and where |
//!
//! 1. What cannot be read or meant is an error with its place; nothing is ignored.
//! 2. All that is wrong is told at once.
//! 3. Settings change while a store is open only where the table says so.

mod error;
mod file;
mod layers;
mod live;
mod preset;
mod table;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidelog_store::{
    EngineOptions, Mode, TierOptions, UpkeepMode, WalDurability, WarmKeep, WarmOptions, WarmPlace,
};

pub use self::error::{Problem, SettingsError};
pub use self::layers::{Layers, Loaded, Origin, check_file, check_value};
pub(crate) use self::live::LiveSettings;
pub use self::live::{ConfigWatch, Reloaded, SettingChange};
pub use self::preset::Preset;
pub use self::table::{ChangeableWhen, SETTINGS, Setting};
use self::values::{
    Bytes, Count, Directory, DurabilityText, Index, KeepText, Maybe, Number, Text, Time, YesNo,
};

/// The bytes that the cache of a remote store may hold, if nothing else is said.
const CACHE_BYTES_MAX: u64 = 1 << 30;

/// All that a user can set. As text, sizes and times are written with their units (`512MiB`,
/// `250ms`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// Numbers that go together, each of which a later layer may replace. Default: none.
    pub preset: Option<Preset>,
    /// Where the store is: a directory or a URL. Default: none.
    #[serde(with = "Maybe::<Text>")]
    pub store: Option<String>,
    /// Who may write while the store is open. Default: [`Mode::Exclusive`] for a store in a directory,
    /// [`Mode::Shared`] for others.
    pub mode: Mode,
    /// Where the write-ahead log of one writer alone lies, a directory on a local disk. Default:
    /// `_wal` beside the files of a store in a directory.
    #[serde(with = "Maybe::<Directory>")]
    pub wal_dir: Option<PathBuf>,
    /// What an append survives that one writer alone has acknowledged. Default:
    /// [`WalDurability::Sync`].
    #[serde(with = "DurabilityText")]
    pub durability: WalDurability,
    /// Rows that one writer alone gathers before they are written to files, at least 1. Default:
    /// 1,000,000.
    #[serde(with = "Count")]
    pub hot_max_rows: u64,
    /// Bytes of memory that these rows may take, at least 1; twice as many may be in memory.
    /// Default: 256 MiB.
    #[serde(with = "Bytes")]
    pub hot_max_bytes: u64,
    /// After what time one writer alone writes its rows to files, though they are few. Default: 10
    /// seconds.
    #[serde(with = "Time")]
    pub hot_max_age: Duration,
    /// Bytes of its write-ahead log beyond which one writer alone writes its rows to files, at least
    /// 1. Default: 512 MiB.
    #[serde(with = "Bytes")]
    pub wal_max_bytes: u64,
    /// Bytes of memory, at least 1. Default: a quarter of the machine's.
    #[serde(with = "Maybe::<Bytes>")]
    pub memory: Option<u64>,
    /// How many partitions of a query run at once, at least 1. Default: the number of cores.
    #[serde(with = "Maybe::<Number>")]
    pub partitions: Option<usize>,
    /// Whether queries for the newest rows of each key leave out older rows while they read.
    /// Default: true.
    #[serde(with = "YesNo")]
    pub key_pruning: bool,
    /// For how long a read may take the newest state that the handle has seen for the newest there
    /// is. Default: zero, every read asks.
    #[serde(with = "Time")]
    pub max_staleness: Duration,
    /// Who keeps the log short. Default: [`UpkeepMode::Background`].
    pub upkeep: UpkeepMode,
    /// Whether files are merged along with the log. Default: true.
    #[serde(with = "YesNo")]
    pub compaction: bool,
    /// The size that merging files aims at, in bytes, at least 1. Default: 128 MiB.
    #[serde(with = "Bytes")]
    pub compaction_target: u64,
    /// Bytes per second that merging files in the background reads and writes, at least 1. Default: as
    /// many as it can.
    #[serde(with = "Maybe::<Bytes>")]
    pub compaction_rate: Option<u64>,
    /// For a store that is made: how long objects of its log are kept after they have ceased to be
    /// part of it, in whole seconds. Default: a day.
    #[serde(with = "Time")]
    pub log_retention: Duration,
    /// Where the warm tier lies. Default: [`WarmPlace::Auto`].
    pub warm_backend: WarmPlace,
    /// Number of the device of the warm tier, from 0 on. Default: 0.
    #[serde(with = "Index")]
    pub warm_device: usize,
    /// Bytes that the warm tier's segments may take, at least 1. Default: a quarter of the memory, or 2 GiB of a
    /// device.
    #[serde(with = "Maybe::<Bytes>")]
    pub warm_max_bytes: Option<u64>,
    /// What is kept warm without being asked for. Default: [`WarmKeep::Flushed`].
    #[serde(with = "KeepText")]
    pub warm_keep: WarmKeep,
    /// The local directory that keeps what is read of a remote store. Default: none.
    #[serde(with = "Maybe::<Directory>")]
    pub cache: Option<PathBuf>,
    /// Bytes that it may hold, at least 1. Default: 1 GiB.
    #[serde(with = "Bytes")]
    pub cache_size: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let EngineOptions { mode, tier, max_staleness, upkeep, compaction, log, warm, .. } =
            EngineOptions::default();
        let WarmOptions { place, device, bytes_max: warm_max_bytes, keep, .. } = warm;
        let TierOptions { durability, rows_max, bytes_max, age_max, wal_bytes_max, .. } = tier;
        Self {
            preset: None,
            store: None,
            mode,
            wal_dir: None,
            durability,
            hot_max_rows: rows_max,
            hot_max_bytes: bytes_max,
            hot_max_age: age_max,
            wal_max_bytes: wal_bytes_max,
            memory: None,
            partitions: None,
            key_pruning: true,
            max_staleness,
            upkeep,
            compaction: compaction.in_background,
            compaction_target: compaction.target_bytes,
            compaction_rate: compaction.bytes_per_second,
            log_retention: log.retention,
            warm_backend: place,
            warm_device: device,
            warm_max_bytes,
            warm_keep: keep,
            cache: None,
            cache_size: CACHE_BYTES_MAX,
        }
    }
}

impl Settings {
    /// The value of a setting as it is written in a file; `None` if it is not set and has no fixed
    /// default, or there is no setting of this name. What opens doors is hidden.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<String> {
        let value = match serde_json::to_value(self).ok()?.get(name)? {
            serde_json::Value::Null => return None,
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let is_location = name == "store";
        Some(if is_location { tidelog_storage::location::shown(&value) } else { value })
    }
}
