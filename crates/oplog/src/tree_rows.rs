//! Changes of the tree as text, for those who keep them elsewhere before they are committed.

use arrow::json::ReaderBuilder;
use arrow::json::writer::LineDelimitedWriter;

use crate::row::{Row, TreeRow};
use crate::schema::log_schema;
use crate::{Error, decode, encode};

/// Rows as JSON, a line each, in the log's schema.
///
/// # Errors
/// [`Error::Encode`] if they do not fit it.
pub fn to_json(rows: &[TreeRow]) -> Result<String, Error> {
    let rows: Vec<Row> = rows.iter().cloned().map(Row::Tree).collect();
    let mut text = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut text);
    writer.write(&encode::to_batch(&rows)?).map_err(Error::encode)?;
    writer.finish().map_err(Error::encode)?;
    drop(writer);
    String::from_utf8(text).map_err(Error::encode)
}

/// Rows as [`to_json`] has written them.
///
/// # Errors
/// If the text is something else.
pub fn from_json(text: &str) -> Result<Vec<TreeRow>, Error> {
    const WHERE: &str = "a record of a write-ahead log";
    let reader = ReaderBuilder::new(log_schema()).with_batch_size(16).build(text.as_bytes());
    let batches = reader.and_then(Iterator::collect).map_err(|error| Error::part(WHERE, &error))?;
    let rows = decode::rows_in(WHERE, batches)?;
    Ok(rows
        .into_iter()
        .filter_map(|row| if let Row::Tree(row) = row { Some(row) } else { None })
        .collect())
}
