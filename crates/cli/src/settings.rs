//! Settings as flags: each is one of the library's, by the same name.

use clap::Args;
use tidelog::Layers;
use tidelog::settings::check_value;

use crate::args::{GLOBAL, Globals};

const SETTINGS: &str = "Settings (also TIDELOG_… in the environment, and in the file of --config)";

/// Settings of the store that a command works on. Texts are checked as they are in files.
#[derive(Debug, Args)]
pub(crate) struct SettingFlags {
    /// The store: a directory, file:///path, s3://bucket/prefix, gs://bucket/prefix or
    /// az://container/prefix [env: TIDELOG_STORE]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "DIR|URL", value_parser = of("store"))]
    store: Option<String>,
    /// Numbers that go together, just above the defaults: ingest, query or small
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "NAME", value_parser = of("preset"))]
    preset: Option<String>,
    /// Who may write to the store meanwhile: `shared`, any number of processes, or `exclusive`, this
    /// one alone: an append is synced to a write-ahead log and written to files when the command
    /// ends; others that write are refused meanwhile. Of `demo --rows` what rows it makes: `simple`,
    /// of 4 columns, or `trading`, of 8 columns, with symbols [default: shared; of the demo simple]
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "MODE", value_parser = mode)]
    mode: Option<String>,
    /// Where the write-ahead log of `--mode exclusive` lies: a directory on a local disk, beside the
    /// files of a store in a directory by default. Readers name it too, to see what a writer has left
    /// that died
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "DIR", value_parser = of("wal_dir"))]
    wal_dir: Option<String>,
    /// What an append of `--mode exclusive` survives: `sync`, a power cut; `interval:250ms`, all but
    /// what came in the last so long; `memory`, the end of the process [default: sync]
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "WHEN", value_parser = of("durability"))]
    durability: Option<String>,
    /// Rows gathered before they are written to files [default: 1000000]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "ROWS", value_parser = of("hot_max_rows"))]
    hot_max_rows: Option<String>,
    /// Memory that these rows may take [default: 256MiB]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "BYTES", value_parser = of("hot_max_bytes"))]
    hot_max_bytes: Option<String>,
    /// The age at which they are written, though they are few [default: 10s]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "TIME", value_parser = of("hot_max_age"))]
    hot_max_age: Option<String>,
    /// Bytes of the write-ahead log beyond which they are written [default: 512MiB]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "BYTES", value_parser = of("wal_max_bytes"))]
    wal_max_bytes: Option<String>,
    /// Memory that rows not yet in files, caches and queries share, such as 512MB; queries that need
    /// more spill to disk. At least 32MiB [default: a quarter of the machine's]
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "BYTES", value_parser = of("memory"))]
    memory: Option<String>,
    /// How many partitions of a query run at once [default: the number of cores]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "COUNT", value_parser = of("partitions"))]
    partitions: Option<String>,
    /// Whether queries for the newest rows of each key leave out older rows while they read
    /// [default: true]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "BOOL", value_parser = of("key_pruning"))]
    key_pruning: Option<String>,
    /// For how long the newest state seen counts as the newest there is [default: 0s]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "TIME", value_parser = of("max_staleness"))]
    max_staleness: Option<String>,
    /// Who keeps the log short: `background` tasks, or nobody but commands at their end, `on_request`
    /// [default: on_request]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "WHO", value_parser = of("upkeep"))]
    upkeep: Option<String>,
    /// Whether files are merged along with the log [default: true]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "BOOL", value_parser = of("compaction"))]
    compaction: Option<String>,
    /// The size that merging files aims at [default: 128MiB]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "BYTES", value_parser = of("compaction_target"))]
    compaction_target: Option<String>,
    /// Bytes per second that merging files in the background reads and writes [default: as many as it
    /// can]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "BYTES", value_parser = of("compaction_rate"))]
    compaction_rate: Option<String>,
    /// For a store that is made: how long log objects are kept that are no longer part of it
    /// [default: 1d]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "TIME", value_parser = of("log_retention"))]
    log_retention: Option<String>,
    /// Where copies of files lie in memory that serve reads of a process which goes on: `off`, `host`, `cuda`,
    /// or what there is, `auto` [default: off]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "WHERE", value_parser = of("warm_backend"))]
    warm_backend: Option<String>,
    /// Number of their device [default: 0]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "NUMBER", value_parser = of("warm_device"))]
    warm_device: Option<String>,
    /// Bytes that they may take [default: a quarter of --memory, or 2GiB of a device]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "BYTES", value_parser = of("warm_max_bytes"))]
    warm_max_bytes: Option<String>,
    /// What is kept there without being asked for: `off`, nothing; `flushed`, what one writer alone writes to
    /// files; a time such as 7d, this and whatever is not older than the newest rows by more [default: flushed]
    #[arg(long, global = true, help_heading = SETTINGS, hide_short_help = true, value_name = "WHAT", value_parser = of("warm_keep"))]
    warm_keep: Option<String>,
    /// Keep what is read of a remote store in this local directory, so that it is fetched once. It
    /// may be deleted at any time. Does nothing for a store in a directory
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "DIR", value_parser = of("cache"))]
    cache: Option<String>,
    /// Bytes that the directory of --cache may hold, such as 2GB [default: 1GiB]
    #[arg(long, global = true, help_heading = SETTINGS, value_name = "BYTES", value_parser = of("cache_size"))]
    cache_size: Option<String>,
}

/// A parser that takes what the setting takes.
fn of(name: &'static str) -> impl Fn(&str) -> Result<String, String> + Clone {
    move |text| check_value(name, text).map(|()| text.to_owned())
}

/// `--mode` is a setting, and of the demo also the shape of its rows.
fn mode(text: &str) -> Result<String, String> {
    match DemoShape::named(text) {
        Some(_) => Ok(text.to_owned()),
        None => of("mode")(text),
    }
}

/// What rows `demo --rows` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DemoShape {
    /// Of 4 columns.
    Simple,
    /// Of 8 columns, with symbols.
    Trading,
}

impl DemoShape {
    fn named(text: &str) -> Option<Self> {
        match text {
            "simple" => Some(Self::Simple),
            "trading" => Some(Self::Trading),
            _ => None,
        }
    }
}

impl SettingFlags {
    /// What `--mode` says of the demo's rows, if it does.
    pub(crate) fn demo_shape(&self) -> Option<DemoShape> {
        self.mode.as_deref().and_then(DemoShape::named)
    }

    /// The flags that were given, by the names of their settings.
    fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("store", &self.store),
            ("preset", &self.preset),
            ("mode", if self.demo_shape().is_none() { &self.mode } else { &None }),
            ("wal_dir", &self.wal_dir),
            ("durability", &self.durability),
            ("hot_max_rows", &self.hot_max_rows),
            ("hot_max_bytes", &self.hot_max_bytes),
            ("hot_max_age", &self.hot_max_age),
            ("wal_max_bytes", &self.wal_max_bytes),
            ("memory", &self.memory),
            ("partitions", &self.partitions),
            ("key_pruning", &self.key_pruning),
            ("max_staleness", &self.max_staleness),
            ("upkeep", &self.upkeep),
            ("compaction", &self.compaction),
            ("compaction_target", &self.compaction_target),
            ("compaction_rate", &self.compaction_rate),
            ("log_retention", &self.log_retention),
            ("warm_backend", &self.warm_backend),
            ("warm_device", &self.warm_device),
            ("warm_max_bytes", &self.warm_max_bytes),
            ("warm_keep", &self.warm_keep),
            ("cache", &self.cache),
            ("cache_size", &self.cache_size),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

/// Where the settings of a command come from. A command writes once and ends, so it has no use for
/// a background or a warm tier, and takes the store for itself only where that is asked for.
pub(crate) fn layers(globals: &Globals) -> Layers {
    let mut layers = Layers::new()
        .with_default("mode", "shared")
        .with_default("upkeep", "on_request")
        .with_default("warm_backend", "off")
        .with_environment(std::env::vars_os());
    if let Some(file) = &globals.config {
        layers = layers.with_config_file(file);
    }
    for (name, value) in globals.settings.given() {
        layers = layers.with_flag(name, value);
    }
    layers
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tidelog::settings::SETTINGS;

    use crate::args::Cli;

    #[test]
    fn each_setting_has_its_flag_and_the_flag_its_setting() {
        for setting in SETTINGS {
            let value = match setting.name {
                "preset" => "small",
                "mode" => "exclusive",
                "durability" => "interval:250ms",
                "hot_max_age" | "max_staleness" | "log_retention" | "warm_keep" => "7s",
                "warm_backend" => "host",
                "key_pruning" | "compaction" => "false",
                "upkeep" => "background",
                "store" | "wal_dir" | "cache" => "place",
                _ => "7",
            };
            let flag = setting.flag();
            let cli = Cli::try_parse_from(["tidelog", "stats", &flag, value]).unwrap();
            let given: Vec<_> = cli.globals.settings.given().collect();
            assert_eq!(given, [(setting.name, value)]);
            assert!(Cli::try_parse_from(["tidelog", "stats", &flag, ""]).is_err(), "{flag}");
        }
    }
}
