//! Of each setting: what it takes, its default, and when it may change.

/// What becomes of a change of a setting while a store is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeableWhen {
    /// It has its effect at once.
    Running,
    /// It has its effect when the store is opened again.
    Reopened,
    /// Never under way: it would break a promise that was made, or is fixed when a store is made.
    Never,
}

impl ChangeableWhen {
    /// As a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Reopened => "reopened",
            Self::Never => "never",
        }
    }
}

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Its name in a file.
    pub name: &'static str,
    /// What it takes: unit and range.
    pub takes: &'static str,
    /// What holds if nobody sets it.
    pub default: &'static str,
    /// When it may change.
    pub changeable: ChangeableWhen,
}

impl Setting {
    /// Its name in the environment.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("TIDELOG_{}", self.name.to_ascii_uppercase())
    }

    /// Its flag on the command line.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }
}

const RATE: &str = "a size of at least 1 byte, for each second, such as 50MB";
const SIZE: &str = "a size of at least 1 byte, such as 512MB or 2GiB";

/// All settings, in the order in which they are shown.
pub const SETTINGS: &[Setting] = {
    use ChangeableWhen::{Never, Reopened, Running};
    &[
        setting("preset", "`ingest`, `query` or `small`", "none", Running),
        setting("store", "a directory or a URL", "none", Never),
        setting(
            "mode",
            "`shared` or `exclusive`",
            "`shared`; `exclusive` for a store in a directory",
            Reopened,
        ),
        setting("wal_dir", "a directory on a local disk", "`_wal` in the store's directory", Never),
        setting(
            "durability",
            "`sync`, `memory`, or `interval:` and a time, such as `interval:250ms`",
            "`sync`",
            Never,
        ),
        setting("hot_max_rows", "rows, at least 1", "`1000000`", Running),
        setting("hot_max_bytes", SIZE, "`256MiB`", Running),
        setting("hot_max_age", "a time, such as 10s", "`10s`", Running),
        setting("wal_max_bytes", SIZE, "`512MiB`", Running),
        setting("memory", SIZE, "a quarter of the machine's", Reopened),
        setting("partitions", "partitions, at least 1", "the number of cores", Running),
        setting("key_pruning", "`true` or `false`", "`true`", Reopened),
        setting("max_staleness", "a time, such as 500ms", "`0s`", Running),
        setting("upkeep", "`background` or `on_request`", "`background`", Reopened),
        setting("compaction", "`true` or `false`", "`true`", Reopened),
        setting("compaction_target", SIZE, "`128MiB`", Reopened),
        setting("compaction_rate", RATE, "as many as it can", Reopened),
        setting("log_retention", "whole seconds as a time, such as 12h", "`1d`", Never),
        setting("warm_backend", "`off`, `auto`, `host` or `cuda`", "`auto`", Reopened),
        setting("warm_device", "the number of a device, from 0 on", "`0`", Reopened),
        setting("warm_max_bytes", SIZE, "a quarter of `memory`, or 2 GiB of a device", Reopened),
        setting("warm_keep", "`off`, `flushed`, or a time, such as 7d", "`flushed`", Running),
        setting("cache", "a local directory", "none", Reopened),
        setting("cache_size", SIZE, "`1GiB`", Reopened),
    ]
};

const fn setting(
    name: &'static str,
    takes: &'static str,
    default: &'static str,
    changeable: ChangeableWhen,
) -> Setting {
    Setting { name, takes, default, changeable }
}

/// The setting of this name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The setting whose name is most like this one, if any is.
pub(crate) fn nearest(name: &str) -> Option<&'static Setting> {
    const LIKE: f64 = 0.8;
    let name = name.to_ascii_lowercase().replace('-', "_");
    let likeness = |setting: &Setting| strsim::jaro_winkler(&name, setting.name);
    SETTINGS
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|setting| likeness(setting) >= LIKE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn the_table_has_the_fields_of_the_struct_and_their_defaults() {
        let fields = serde_json::to_value(Settings::default()).unwrap();
        let mut names: Vec<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        let mut table: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        names.sort_unstable();
        table.sort_unstable();
        assert_eq!(names, table);
        for setting in SETTINGS {
            match Settings::default().value(setting.name) {
                Some(value) => {
                    let default = setting.default.split(';').next().unwrap();
                    assert_eq!(default, format!("`{value}`"), "{}", setting.name);
                }
                None => assert!(!setting.default.starts_with('`') || setting.name == "wal_dir"),
            }
        }
    }

    #[test]
    fn the_nearest_name_is_found() {
        assert_eq!(nearest("hot_max_row").unwrap().name, "hot_max_rows");
        assert_eq!(nearest("hot-max-rows").unwrap().name, "hot_max_rows");
        assert_eq!(nearest("Memroy").unwrap().name, "memory");
        assert_eq!(nearest("zebra"), None);
    }
}
