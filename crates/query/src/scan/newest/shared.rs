//! What the partitions of a scan share: the files still to be read and the keys passed on.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::datasource::source::OpenArgs;
use datafusion::error::Result;

use super::key_times::KeyTimes;
use crate::scan::files::ScanFile;
use crate::scan::source::SeriesSource;

/// So many dictionaries more than were of use may be read in vain.
const MISSES_MAX: usize = 4;

/// The keys of which only the newest rows are wanted, as columns of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::scan) struct Newest {
    pub(in crate::scan) keys: Vec<String>,
}

impl fmt::Display for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "newest of [{}]", self.keys.join(", "))
    }
}

/// The executions of one plan: one after the other, each opens every partition once.
#[derive(Debug)]
struct Executions(Mutex<Execution>);

#[derive(Debug)]
struct Execution {
    opened: Vec<usize>,
    shared: Arc<Shared>,
}

impl Executions {
    /// What `partition` shares with the others of its execution.
    fn join(
        &self,
        newest: &Newest,
        source: &SeriesSource,
        partition: usize,
    ) -> Result<Arc<Shared>> {
        let mut execution = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if execution.opened.contains(&partition) {
            *execution = newest.execution(source)?;
        }
        execution.opened.push(partition);
        Ok(Arc::clone(&execution.shared))
    }
}

/// What the partitions of one execution share.
#[derive(Debug)]
pub(super) struct Shared {
    /// What is still to be read, the newest at the end.
    files: Mutex<Vec<ScanFile>>,
    pub(super) times: Arc<KeyTimes>,
    /// Dictionaries that let a row group be skipped, and that did not.
    hits: AtomicUsize,
    misses: AtomicUsize,
}

impl Shared {
    /// The newest file that is left.
    pub(super) fn next(&self) -> Option<ScanFile> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Whether to look into the dictionaries of a row group before it is opened.
    pub(super) fn asks_dictionaries(&self) -> bool {
        let misses = self.misses.load(Ordering::Relaxed);
        misses < MISSES_MAX + self.hits.load(Ordering::Relaxed) && self.times.count() > 0
    }

    /// Counts whether a look let a row group be skipped.
    pub(super) fn tally(&self, skipped: bool) {
        let tally = if skipped { &self.hits } else { &self.misses };
        tally.fetch_add(1, Ordering::Relaxed);
    }
}

impl Newest {
    /// What the partitions of `source` have in common.
    pub(in crate::scan) fn siblings(
        &self,
        source: &SeriesSource,
    ) -> Result<Arc<dyn Any + Send + Sync>> {
        Ok(Arc::new(Executions(Mutex::new(self.execution(source)?))))
    }

    fn execution(&self, source: &SeriesSource) -> Result<Execution> {
        let shared = Arc::new(self.shared(source, source.facts.by_time.clone())?);
        Ok(Execution { opened: Vec::new(), shared })
    }

    fn shared(&self, source: &SeriesSource, mut files: Vec<ScanFile>) -> Result<Shared> {
        let table = source.config.file_source.table_schema().table_schema();
        let types = self.keys.iter().map(|key| Ok(table.field_with_name(key)?.data_type().clone()));
        let types = types.collect::<Result<Vec<_>>>()?;
        files.sort_by_key(|file| file.range().end());
        Ok(Shared {
            files: Mutex::new(files),
            times: Arc::new(KeyTimes::try_new(types.into_iter())?),
            hits: AtomicUsize::new(0),
            misses: AtomicUsize::new(0),
        })
    }

    /// The files of this partition alone, if partitions have nothing in common.
    fn alone(&self, source: &SeriesSource, partition: usize) -> Result<Arc<Shared>> {
        let partitions = source.config.file_groups.len().max(1);
        let files = source.facts.by_time.iter().skip(partition).step_by(partitions);
        Ok(Arc::new(self.shared(source, files.cloned().collect())?))
    }

    /// What the partition of `args` shares with others.
    pub(super) fn join(&self, source: &SeriesSource, args: &OpenArgs) -> Result<Arc<Shared>> {
        let siblings = args.sibling_state.as_ref().and_then(|s| s.downcast_ref::<Executions>());
        match siblings {
            Some(siblings) => siblings.join(self, source, args.partition),
            None => self.alone(source, args.partition),
        }
    }
}
