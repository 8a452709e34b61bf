//! Tables to look at.
//!
//! A terminal gets a view: the first rows and the columns that fit, and how many more there are. A
//! pipe or file gets all rows, streamed: the width of each column is that of its widest cell among
//! the first rows, so that memory stays bounded; a wider cell further down sticks out.

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets,
};

use crate::error::{Error, Result};
use crate::output::rows::RowsWriter;
use crate::output::sink::{self, Sink};
use crate::progress::grouped;

/// Rows that a terminal shows.
const VIEW_ROWS: usize = 40;
/// Rows beyond which a view stops counting, as counting reads them.
const VIEW_COUNTED_ROWS_MAX: u64 = 10_000_000;
/// Rows whose cells decide the widths when all rows are written.
const SAMPLE_ROWS: usize = 1_000;
/// Lines above the first row: border, names, border.
const HEAD_LINES: usize = 3;
const ELLIPSIS: &str = "…";

/// What of a table is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    rows: usize,
    width: Option<u16>,
}

impl View {
    /// What fits the terminal that stdout is.
    pub(crate) fn of_terminal() -> Self {
        Self { rows: VIEW_ROWS, width: Table::new().width() }
    }
}

/// Writes a table, or a view of it.
#[derive(Debug)]
pub(crate) struct TableWriter {
    schema: SchemaRef,
    view: Option<View>,
    sink: Sink,
    pending: Vec<Vec<String>>,
    /// Widths and the line at the bottom, once the first rows are written.
    layout: Option<(Vec<u16>, String)>,
    total: u64,
}

impl TableWriter {
    /// A writer of all rows, or of a view.
    pub(crate) fn new(schema: SchemaRef, view: Option<View>, sink: Sink) -> Self {
        Self { schema, view, sink, pending: Vec::new(), layout: None, total: 0 }
    }

    fn wanted(&self) -> usize {
        self.view.map_or(usize::MAX, |view| view.rows.saturating_sub(self.pending.len()))
    }

    fn put(&mut self, lines: &[String]) -> Result<()> {
        for line in lines {
            let written = writeln!(self.sink, "{}", line.trim_end());
            written.map_err(|error| sink::failed(self.sink.path().as_deref(), error))?;
        }
        let flushed = self.sink.flush();
        flushed.map_err(|error| sink::failed(self.sink.path().as_deref(), error))
    }

    /// Writes the rows at hand, with the names above them if they are the first.
    fn put_rows(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.pending);
        let widths = self.layout.as_ref().map(|(widths, _)| widths.as_slice());
        let table = table(&self.schema, &rows, widths);
        let mut lines: Vec<String> = table.lines().collect();
        let bottom = lines.pop().unwrap_or_default();
        if self.layout.is_none() {
            self.layout = Some((table.column_max_content_widths(), bottom));
        } else {
            lines.drain(..HEAD_LINES.min(lines.len()));
        }
        self.put(&lines)
    }

    fn finish_all(&mut self) -> Result<()> {
        if self.layout.is_none() || !self.pending.is_empty() {
            self.put_rows()?;
        }
        let bottom = self.layout.take().map(|(_, bottom)| bottom).unwrap_or_default();
        self.put(&[bottom])
    }

    fn finish_view(&mut self, view: View) -> Result<()> {
        let rows = std::mem::take(&mut self.pending);
        let shown = rows.len() as u64;
        let full = table(&self.schema, &rows, None);
        let fitting = fitting(&full.column_max_content_widths(), view.width);
        let mut lines: Vec<String> = if fitting.count() == self.schema.fields().len() {
            full.lines().collect()
        } else {
            elided(&self.schema, &rows, fitting).lines().collect()
        };
        lines.push(self.summary(shown, fitting.count()));
        self.put(&lines)
    }

    fn summary(&self, shown: u64, fitting: usize) -> String {
        let more = if self.is_full() { "more than " } else { "" };
        let mut text = format!("{more}{} rows", grouped(self.total));
        if self.total == 1 {
            text = "1 row".to_owned();
        }
        if shown < self.total {
            text.push_str(&format!(", the first {shown} shown"));
        }
        let columns = self.schema.fields().len();
        if fitting < columns {
            text.push_str(&format!("; {columns} columns, {fitting} shown"));
        }
        if shown < self.total || fitting < columns {
            text.push_str(" (all: --format csv, or -o FILE)");
        }
        text
    }
}

impl RowsWriter for TableWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.total += batch.num_rows() as u64;
        let wanted = self.wanted().min(batch.num_rows());
        for start in (0..wanted).step_by(SAMPLE_ROWS) {
            let rows = SAMPLE_ROWS.min(wanted - start);
            self.pending.extend(cells(&batch.slice(start, rows))?);
            if self.view.is_none() && self.pending.len() >= SAMPLE_ROWS {
                self.put_rows()?;
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.view.is_some() && self.total > VIEW_COUNTED_ROWS_MAX
    }

    fn finish(mut self: Box<Self>) -> Result<Sink> {
        // A statement that only does something has neither columns nor rows.
        if !self.schema.fields().is_empty() {
            match self.view {
                Some(view) => self.finish_view(view)?,
                None => self.finish_all()?,
            }
        }
        Ok(self.sink)
    }
}

/// All rows as one table.
pub(crate) fn render(batches: &[RecordBatch], schema: &SchemaRef) -> Result<String> {
    let mut rows = Vec::new();
    for batch in batches {
        rows.extend(cells(batch)?);
    }
    let lines: Vec<String> = table(schema, &rows, None).lines().collect();
    Ok(lines.join("\n") + "\n")
}

/// The cells of a batch as text on one line each.
fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let failed =
        |error: &dyn std::fmt::Display| Error::Rows { format: "table", message: error.to_string() };
    let options = FormatOptions::default();
    let formatters = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(&error))?;
    (0..batch.num_rows())
        .map(|row| {
            let cell = |column: &ArrayFormatter<'_>| {
                column.value(row).try_to_string().map(|text| on_one_line(&text))
            };
            formatters.iter().map(cell).collect::<Result<_, _>>().map_err(|error| failed(&error))
        })
        .collect()
}

/// Control characters would break the table, or do worse to a terminal.
fn on_one_line(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

fn table(schema: &SchemaRef, rows: &[Vec<String>], widths: Option<&[u16]>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(schema.fields().iter().map(|field| Cell::new(on_one_line(field.name()))));
    table.add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        if schema.fields().get(i).is_some_and(|field| field.data_type().is_numeric()) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if let Some(width) = widths.and_then(|widths| widths.get(i)) {
            let padded = width.saturating_add(column.padding_width());
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(padded)));
        }
    }
    table
}

/// The columns that fit: from both ends inwards, as the time column is often the first or the last.
/// Between them stands an ellipsis. At least the first is shown.
fn fitting(widths: &[u16], terminal: Option<u16>) -> Ends {
    let all = Ends { left: widths.len(), right: 0 };
    let Some(terminal) = terminal.map(usize::from) else { return all };
    let room = |width: u16| usize::from(width) + 3;
    if widths.iter().map(|width| room(*width)).sum::<usize>() < terminal {
        return all;
    }
    let mut ends = Ends { left: 1, right: 0 };
    let mut used = 1 + room(1) + widths.first().map_or(0, |width| room(*width));
    while ends.count() < widths.len() {
        let from_right = ends.right < ends.left;
        let next = if from_right { widths.len() - 1 - ends.right } else { ends.left };
        used += room(widths[next]);
        if used > terminal {
            break;
        }
        if from_right { ends.right += 1 } else { ends.left += 1 }
    }
    ends
}

/// How many columns are shown from each end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    left: usize,
    right: usize,
}

impl Ends {
    fn count(self) -> usize {
        self.left + self.right
    }

    fn elide<T>(self, all: &[T], ellipsis: T) -> Vec<T>
    where
        T: Clone,
    {
        let (left, right) = (&all[..self.left], &all[all.len() - self.right..]);
        left.iter().cloned().chain([ellipsis]).chain(right.iter().cloned()).collect()
    }
}

/// The table without the columns in the middle.
fn elided(schema: &SchemaRef, rows: &[Vec<String>], ends: Ends) -> Table {
    let fields = schema.fields();
    let fields = ends.elide(fields, Arc::new(Field::new(ELLIPSIS, DataType::Utf8, true)));
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| ends.elide(row, ELLIPSIS.to_owned())).collect();
    table(&Arc::new(Schema::new(fields)), &rows, None)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;
    use crate::output::sink;

    fn batch(rows: i64) -> RecordBatch {
        let names = (0..rows).map(|i| format!("name {i:04}"));
        RecordBatch::try_from_iter([
            ("number", Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef),
            ("who", Arc::new(StringArray::from_iter_values(names))),
        ])
        .unwrap()
    }

    fn written(view: Option<View>, batches: &[RecordBatch]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table");
        let sink = sink::open(Some(Path::new(&path))).unwrap();
        let mut writer = Box::new(TableWriter::new(batches[0].schema(), view, sink));
        for batch in batches {
            writer.write(batch).unwrap();
        }
        writer.finish().unwrap().commit().unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn all_rows_are_streamed_in_columns_of_one_width() {
        let text = written(None, &[batch(1_500), batch(700)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), HEAD_LINES + 2_200 + 1);
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width), "{text}");
    }

    #[test]
    fn a_terminal_gets_the_first_rows_and_what_is_left_out() {
        let view = View { rows: 2, width: Some(20) };
        let text = written(Some(view), &[batch(5), batch(5)]);
        assert!(text.contains(ELLIPSIS), "{text}");
        assert!(text.contains("10 rows, the first 2 shown"), "{text}");
        assert!(text.contains("2 columns, 1 shown"), "{text}");
        let wide = View { rows: 40, width: Some(80) };
        let text = written(Some(wide), &[batch(3)]);
        assert!(text.ends_with("3 rows\n"), "{text}");
    }

    #[test]
    fn columns_are_kept_from_both_ends() {
        let fit = |terminal| fitting(&[5, 5, 5, 5], terminal);
        assert_eq!(fit(None), Ends { left: 4, right: 0 });
        assert_eq!(fit(Some(33)), Ends { left: 4, right: 0 });
        assert_eq!(fit(Some(32)), Ends { left: 2, right: 1 });
        assert_eq!(fit(Some(21)), Ends { left: 1, right: 1 });
        assert_eq!(fit(Some(3)), Ends { left: 1, right: 0 });
        let ends = Ends { left: 1, right: 1 };
        assert_eq!(ends.elide(&["a", "b", "c"], "…"), ["a", "…", "c"]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(on_one_line("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
    }
}
