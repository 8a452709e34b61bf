//! Which objects of a store never change.

use tidelog_core::FileId;
use tidelog_oplog::LOG_DIRECTORY;
use tidelog_storage::object_store::path::Path;

/// The directory of all data files.
pub(crate) const DATA_DIRECTORY: &str = "series";

/// The directory of the write-ahead log of a local store.
pub const WAL_DIRECTORY: &str = "_wal";

/// The pin file of a local store, by which readers on one machine are known.
pub const PIN_FILE: &str = "_pins";

/// Whether an object of this name, relative to the store's root, has the same bytes for ever: data
/// files and parts of the log, whose names hold an id that is drawn anew for each. In doubt it has
/// not.
#[must_use]
pub fn is_immutable(object: &Path) -> bool {
    let mut parts = object.parts();
    let (Some(directory), Some(name)) = (parts.next(), parts.next_back()) else { return false };
    let folders = parts.count();
    let (prefix, fits) = match directory.as_ref() {
        DATA_DIRECTORY => ("", folders > 0),
        LOG_DIRECTORY => ("part-", folders == 0),
        _ => return false,
    };
    let id = name.as_ref().strip_prefix(prefix).and_then(|name| name.strip_suffix(".parquet"));
    fits && id.is_some_and(|id| FileId::parse(id).is_ok())
}

/// Whether the log has objects of this name.
#[must_use]
pub(crate) fn is_of_log(object: &Path) -> bool {
    let mut parts = object.parts();
    if parts.next().is_none_or(|directory| directory.as_ref() != LOG_DIRECTORY) {
        return false;
    }
    let rest: Vec<_> = parts.collect();
    let is_number = |text: &str| text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    match rest.iter().map(AsRef::as_ref).collect::<Vec<&str>>().as_slice() {
        ["_delta_log", "_last_checkpoint"] | ["upkeep-clock"] => true,
        ["_delta_log", name] => {
            let number = name.strip_suffix(".json").or(name.strip_suffix(".checkpoint.parquet"));
            number.is_some_and(is_number)
        }
        [name] => name.starts_with("probe-") || is_immutable(object),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_the_log_are_told_from_others() {
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        for name in [
            "_oplog/_delta_log/00000000000000000001.json",
            "_oplog/_delta_log/00000000000000000032.checkpoint.parquet",
            "_oplog/_delta_log/_last_checkpoint",
            "_oplog/upkeep-clock",
            "_oplog/probe-1",
            &format!("_oplog/part-{id}.parquet"),
        ] {
            assert!(is_of_log(&Path::from(name)), "{name}");
        }
        for name in [
            "_oplog/_delta_log/1.json",
            "_oplog/_delta_log/notes.json",
            "_oplog/notes",
            "_oplog",
            "_oplog/part-1.parquet",
            "other/upkeep-clock",
            &format!("series/{id}/{id}.parquet"),
        ] {
            assert!(!is_of_log(&Path::from(name)), "{name}");
        }
    }

    #[test]
    fn data_files_and_log_parts_never_change() {
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        for name in [
            format!("series/{id}/{id}.parquet"),
            format!("series/{id}/2023_01/{id}.parquet"),
            format!("_oplog/part-{id}.parquet"),
        ] {
            assert!(is_immutable(&Path::from(name.as_str())), "{name}");
        }
        for name in [
            "_oplog/_delta_log/00000000000000000001.json".to_owned(),
            "_oplog/_delta_log/00000000000000000032.checkpoint.parquet".to_owned(),
            format!("_oplog/_delta_log/part-{id}.parquet"),
            "_oplog/_delta_log/_last_checkpoint".to_owned(),
            "_oplog/upkeep-clock".to_owned(),
            format!("_oplog/{id}.parquet"),
            format!("_oplog/probe-{id}"),
            "_oplog/part-1.parquet".to_owned(),
            format!("series/{id}.parquet"),
            format!("series/{id}/{id}.parquet#1"),
            format!("series/{id}/_delta_log/00000000000000000001.checkpoint.parquet"),
            "series".to_owned(),
            String::new(),
        ] {
            assert!(!is_immutable(&Path::from(name.as_str())), "{name}");
        }
    }
}
