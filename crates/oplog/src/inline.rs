//! The rows of a small commit, inside the commit.
//!
//! Whoever follows the log reads each commit anyway. With its rows inside, that one request tells all
//! that there is to know; the part is for readers that come later, and for those of other tools. The
//! rows are JSON, a line each, nulls left out, beside a hash of the text.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::json::ReaderBuilder;
use arrow::json::writer::LineDelimitedWriter;

use crate::decode;
use crate::error::Error;
use crate::hash::Hash128;
use crate::row::Row;
use crate::schema::log_schema;

const ROWS_MAX: usize = 16;
const BYTES_MAX: usize = 8 * 1024;

/// Rows as text, and its hash.
#[derive(Debug, Clone)]
pub(crate) struct Inline {
    text: Arc<str>,
}

impl Inline {
    /// The rows of a batch, if they are few.
    pub(crate) fn of(batch: &RecordBatch) -> Result<Option<Self>, Error> {
        if batch.num_rows() > ROWS_MAX {
            return Ok(None);
        }
        let mut text = Vec::with_capacity(2048);
        let mut writer = LineDelimitedWriter::new(&mut text);
        writer.write(batch).map_err(Error::encode)?;
        writer.finish().map_err(Error::encode)?;
        drop(writer);
        if text.len() > BYTES_MAX {
            return Ok(None);
        }
        let text = String::from_utf8(text).map_err(Error::encode)?;
        Ok(Some(Self { text: text.into() }))
    }

    /// Rows as read back, if the text is what was written.
    pub(crate) fn checked(text: &str, hash: &str) -> Option<Self> {
        (Hash128::of(text.as_bytes()).to_string() == hash).then(|| Self { text: text.into() })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn hash(&self) -> String {
        Hash128::of(self.text.as_bytes()).to_string()
    }

    /// The rows of the commit that lies in `object`.
    pub(crate) fn rows(&self, object: &str) -> Result<Vec<Row>, Error> {
        decode::from_json_lines(object, &self.text)
    }

    /// The rows of the commit that lies in `object`, in the log's schema.
    pub(crate) fn batches(&self, object: &str) -> Result<Vec<RecordBatch>, Error> {
        let fail = |error: &dyn std::fmt::Display| Error::part(object, error);
        // Buffers are made for whole batches, of each column: they would be most of the work.
        let reader = ReaderBuilder::new(log_schema()).with_batch_size(ROWS_MAX);
        let reader = reader.build(self.text.as_bytes());
        reader.map_err(|e| fail(&e))?.collect::<Result<_, _>>().map_err(|e| fail(&e))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::json::ReaderBuilder;
    use tidelog_core::env::SystemRandomness;
    use tidelog_core::{
        CommitVersion, FileId, NodeId, TimeRange, TransactionId, TreePath, Version, WriteTime,
    };

    use super::*;
    use crate::encode::to_batch;
    use crate::row::{
        EntryType, FileOp, FileRow, StoreOp, StoreRow, TreeOp, TreeRow, Until, VersionOp,
        VersionRow,
    };
    use crate::schema::log_schema;
    use crate::{Codec, FileOrder, SeriesOptions};

    const PATHS: [&str; 4] = ["/a.series", "/\"quoted\"/ü.series", "/back\\slash", "/ taken "];

    /// A row of each family, with what JSON must escape, write times with and without a fraction, and
    /// numbers that a double cannot hold.
    fn rows() -> Vec<Row> {
        let node = NodeId::random(&SystemRandomness);
        let commit = CommitVersion::new(7);
        let paths = PATHS.into_iter().filter_map(|path| TreePath::parse(path).ok());
        let mut rows = Vec::new();
        for (number, path) in (1..).zip(paths) {
            let timestamp = WriteTime::from_micros(number * 1_700_000_000_000_001 - 1);
            let range = TimeRange::try_new(i64::MIN + number, i64::MAX - number).unwrap();
            let schema = Schema::new(vec![Field::new("v\n", DataType::Int64, true)]);
            rows.push(Row::Tree(TreeRow {
                op: TreeOp::Create,
                node,
                entry: EntryType::FileSeries,
                path: path.clone(),
                timestamp,
                schema: (number % 2 == 0).then(|| Arc::new(schema)),
                options: (number % 2 == 1).then(|| Arc::new(SeriesOptions::default())),
                commit,
            }));
            rows.push(Row::Version(VersionRow {
                op: VersionOp::Append,
                node,
                path: path.clone(),
                version: Version::new(number),
                timestamp,
                rows: 3,
                range: Some(range).filter(|_| number != 2),
                time_column: "t\u{1}\t".into(),
                transaction: TransactionId::random(&SystemRandomness),
                detail: (number == 3).then(|| "{\"where\":\"a = 'b\\n'\"}".into()),
                commit,
            }));
            rows.push(Row::File(FileRow {
                op: FileOp::Add,
                file: FileId::random(&SystemRandomness),
                node,
                path,
                timestamp,
                location: "series/1.parquet".into(),
                size: 1,
                rows: 3,
                row_groups: 1,
                tail_length: 1,
                hash: Hash128::of(b"a"),
                tail_hash: Hash128::of(b"b"),
                page_hashes: (0..=255).collect::<Vec<u8>>().into(),
                range,
                min_version: Version::new(number),
                max_version: Version::new(number),
                version_base: number,
                partition: None,
                order: FileOrder::Time,
                until: match number {
                    1 => None,
                    2 => Some(Until::All(Version::new(9))),
                    _ => Some(Until::Each { first: Version::new(5), last: Version::new(9) }),
                },
                unique: number == 1,
                column_stats: Vec::new().into(),
                codec: Codec::Auto,
                row_group_rows: 0,
                runs: [].into(),
                commit,
            }));
        }
        let timestamp = WriteTime::from_micros(1_700_000_000_000_000);
        let op = StoreOp::Vacuum { objects: vec!["part-1".into(), "p\"2".into()] };
        rows.push(Row::Store(StoreRow { op, timestamp, commit }));
        rows
    }

    /// What the lines say is what Arrow, whose writer wrote them, reads from them.
    #[test]
    fn lines_are_read_as_arrow_reads_them() {
        let rows = rows();
        let batch = to_batch(&rows).unwrap();
        let inline = Inline::of(&batch).unwrap().unwrap();
        let reader = ReaderBuilder::new(log_schema()).build(inline.text.as_bytes()).unwrap();
        let batches = reader.collect::<Result<Vec<_>, _>>().unwrap();
        let by_arrow = decode::rows_in("a commit", batches).unwrap();
        let by_line = inline.rows("a commit").unwrap();
        assert_eq!((by_arrow.len(), by_line.len()), (rows.len(), rows.len()));
        for ((row, by_arrow), by_line) in rows.iter().zip(&by_arrow).zip(&by_line) {
            assert_eq!(format!("{row:?}"), format!("{by_arrow:?}"));
            assert_eq!(format!("{row:?}"), format!("{by_line:?}"));
        }
    }

    #[test]
    fn lines_that_are_no_rows_are_damage() {
        let inline = Inline::of(&to_batch(&rows()).unwrap()).unwrap().unwrap();
        let line = inline.text.lines().nth(2).unwrap().to_owned();
        let text = |line: &str| Inline { text: line.into() }.rows("a commit");
        assert_eq!(text(&line).unwrap().len(), 1);
        let worse = [
            line.replace("\"kind\":\"file\"", "\"kind\":null"),
            line.replace("\"kind\":\"file\"", "\"kind\":\"else\""),
            line.replace("\"size\":1", "\"size\":-1"),
            line.replace("\"size\":1", "\"size\":\"one\""),
            line.replace("\"size\":1", "\"size\":1,\"min_until\":4"),
            line.replace("\"size\":1", "\"size\":1,\"min_until\":4,\"max_until\":5"),
            line.replace("\"timestamp\":\"", "\"timestamp\":\"x"),
            line.replace("\"page_hashes\":\"00", "\"page_hashes\":\"0"),
            line.replace("\"page_hashes\":\"00", "\"page_hashes\":\"0ü"),
            line[..line.len() - 1].to_owned(),
        ];
        for worse in worse {
            assert_ne!(worse, line);
            text(&worse).unwrap_err();
        }
    }
}
