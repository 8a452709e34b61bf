//! The hot versions of one series.

use std::sync::Arc;

use tidelog_core::Version;
use tidelog_oplog::VersionRow;
use tidelog_oplog::series::RangeLog;

use super::file::HotFile;
use crate::error::Error;
use crate::series_schema::SeriesSchema;

/// So many pieces of one level are joined into one of the next: a row is copied once a level, and a
/// read opens few pieces.
const JOINED_AT: usize = 16;

/// The versions of one series that are in one generation, and their rows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HotSeries {
    schema: Arc<SeriesSchema>,
    versions: RangeLog<VersionRow>,
    files: Arc<Vec<Arc<HotFile>>>,
}

impl HotSeries {
    pub(crate) fn new(schema: Arc<SeriesSchema>) -> Self {
        Self { schema, versions: RangeLog::default(), files: Arc::default() }
    }

    pub(crate) fn schema(&self) -> &Arc<SeriesSchema> {
        &self.schema
    }

    /// The versions, oldest first.
    #[must_use]
    pub fn versions(&self) -> &RangeLog<VersionRow> {
        &self.versions
    }

    /// The newest version.
    #[must_use]
    pub fn head(&self) -> Version {
        self.versions.last().map_or(Version::NONE, |row| row.version)
    }

    /// Their rows, in pieces, oldest first.
    #[must_use]
    pub fn files(&self) -> &[Arc<HotFile>] {
        &self.files
    }

    /// Adds versions and their rows; returns by how many bytes the series has grown or, as small
    /// pieces have been joined, shrunk.
    pub(crate) fn push(
        &mut self,
        versions: impl IntoIterator<Item = VersionRow>,
        file: HotFile,
    ) -> Result<i64, Error> {
        let bytes = |files: &[Arc<HotFile>]| files.iter().map(|file| file.bytes()).sum::<usize>();
        let mut files = self.files.to_vec();
        let before = bytes(&files);
        files.push(Arc::new(file));
        while let Some(from) = full_level(&files) {
            let joined = HotFile::joined(&self.schema, &files[from..])?;
            files.truncate(from);
            files.push(Arc::new(joined));
        }
        let grown = i64::try_from(bytes(&files)).unwrap_or_default()
            - i64::try_from(before).unwrap_or_default();
        let rows = self.versions.len();
        versions.into_iter().for_each(|row| self.versions.push(Arc::new(row)));
        self.files = Arc::new(files);
        let added = (self.versions.len() - rows) * size_of::<VersionRow>();
        Ok(grown + i64::try_from(added).unwrap_or_default())
    }
}

/// Where the newest pieces begin that are alike and many enough to be joined.
fn full_level(files: &[Arc<HotFile>]) -> Option<usize> {
    let level = files.last()?.level();
    let alike = files.iter().rev().take_while(|file| file.level() == level).count();
    (alike >= JOINED_AT).then(|| files.len() - alike)
}
