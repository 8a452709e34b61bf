//! The least that a durable append could cost: three new files of the sizes that Tidelog writes, each synced
//! together with its folder.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};

use crate::generate::rng::Rng;

/// Newest files of a kind that are looked at: enough that a merged log file among them is not the median.
const NEWEST: usize = 20;

/// The bytes of the three files that one append writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FileSizes {
    pub(crate) data: usize,
    pub(crate) log: usize,
    pub(crate) commit: usize,
}

impl FileSizes {
    /// Of the appends that a store has just seen: for each kind the median of its newest files.
    pub(crate) fn of_newest(store: &Path) -> Result<Self> {
        let mut kinds: [Vec<(SystemTime, u64)>; 3] = Default::default();
        scan(store, store, &mut kinds)?;
        let [data, log, commit] = kinds.map(median_of_newest);
        let missing = "the store has no data, log or commit file to take a size from";
        Ok(Self {
            data: data.context(missing)?,
            log: log.context(missing)?,
            commit: commit.context(missing)?,
        })
    }

    fn each(self) -> [(&'static str, usize); 3] {
        [("data", self.data), ("log", self.log), ("commit", self.commit)]
    }
}

fn scan(store: &Path, folder: &Path, kinds: &mut [Vec<(SystemTime, u64)>; 3]) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A file may go while it is looked at: the store looks after its log meanwhile.
        let (path, Ok(facts)) = (entry.path(), entry.metadata()) else { continue };
        if facts.is_dir() {
            scan(store, &path, kinds)?;
        } else if let Some(kind) = path.strip_prefix(store).ok().and_then(kind) {
            kinds[kind].push((facts.modified()?, facts.len()));
        }
    }
    Ok(())
}

/// 0 for a data file, 1 for a file of log rows, 2 for a commit; none for all that an append does not write.
fn kind(relative: &Path) -> Option<usize> {
    let extension = relative.extension()?.to_str()?;
    let commits = relative.components().any(|part| part.as_os_str() == "_delta_log");
    match (extension, commits, relative.starts_with("_oplog")) {
        ("parquet", false, false) => Some(0),
        ("parquet", false, true) => Some(1),
        ("json", true, true) => Some(2),
        _ => None,
    }
}

fn median_of_newest(mut files: Vec<(SystemTime, u64)>) -> Option<usize> {
    files.sort_by_key(|(modified, _)| Reverse(*modified));
    let mut sizes: Vec<u64> = files.into_iter().take(NEWEST).map(|(_, size)| size).collect();
    sizes.sort_unstable();
    usize::try_from(*sizes.get(sizes.len() / 2)?).ok()
}

/// Writes the three files again and again, each kind in a folder of its own.
#[derive(Debug)]
pub(crate) struct ThreeFiles {
    files: [(PathBuf, Vec<u8>); 3],
    next: usize,
}

impl ThreeFiles {
    pub(crate) fn new(folder: &Path, sizes: FileSizes) -> Result<Self> {
        let mut rng = Rng::new(0);
        // Random content, so that no file system stores less than was asked for.
        let mut bytes =
            |size| (0..size).map(|_| u8::try_from(rng.below(256)).unwrap_or(0)).collect();
        let files = sizes.each().map(|(kind, size)| (folder.join(kind), bytes(size)));
        for (kind, _) in &files {
            fs::create_dir_all(kind)?;
        }
        Ok(Self { files, next: 0 })
    }

    /// Milliseconds of writing and syncing one set.
    pub(crate) fn write_and_sync(&mut self) -> Result<f64> {
        let name = format!("{:020}", self.next);
        self.next += 1;
        let started = Instant::now();
        for (folder, content) in &self.files {
            let mut file = File::create_new(folder.join(&name))?;
            file.write_all(content)?;
            file.sync_all()?;
            File::open(folder)?.sync_all()?;
        }
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_taken_from_the_files_that_an_append_writes() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let write = |path: &str, size: usize| -> Result<()> {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap())?;
            Ok(fs::write(path, vec![0; size])?)
        };
        write("series/a/1.parquet", 30)?;
        write("_oplog/1.parquet", 20)?;
        write("_oplog/_delta_log/1.json", 10)?;
        write("_oplog/_delta_log/1.checkpoint.parquet", 999)?;
        let sizes = FileSizes::of_newest(folder.path())?;
        assert_eq!(sizes, FileSizes { data: 30, log: 20, commit: 10 });
        let mut files = ThreeFiles::new(&folder.path().join("baseline"), sizes)?;
        assert!(files.write_and_sync()? > 0.0);
        assert!(files.write_and_sync()? > 0.0);
        Ok(())
    }
}
