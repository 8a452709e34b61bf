//! Drawings of how a series lies in files, over event time.
//!
//! - `text` draws with characters, for a terminal.
//! - `picture` draws SVG, alone or within a page of HTML.

mod picture;
mod text;

use tidelog::{EventTime, LayoutFile, SeriesLayout, TimeRange};

use crate::commands::layout_words;
use crate::progress::{grouped, size};

pub(crate) use picture::{page, picture};
pub(crate) use text::text;

/// What a layout amounts to, in a line.
fn summary(layout: &SeriesLayout) -> String {
    let count = |number: usize, one: &str, many: &str| {
        format!("{} {}", grouped(number as u64), if number == 1 { one } else { many })
    };
    let in_memory = layout.files.iter().filter(|file| file.object.is_none()).count();
    let rows: u64 = layout.files.iter().map(|file| file.rows).sum();
    let mut words = format!(
        "{} ({}) with {} rows",
        count(layout.files.len() - in_memory, "file", "files"),
        size(layout.file_bytes()),
        grouped(rows)
    );
    if in_memory > 0 {
        words.push_str(&format!(", {} of them in memory", count(in_memory, "piece", "pieces")));
    }
    match layout.depth {
        0 | 1 => words.push_str("; none overlap"),
        depth => words.push_str(&format!("; at most {depth} overlap")),
    }
    words
}

/// How the series is to be laid out, and what compaction would do next.
fn outlook(layout: &SeriesLayout) -> Vec<String> {
    let mut lines = vec![format!("laid out by {}", layout_words(&layout.layout))];
    lines.extend(layout.next.iter().map(|merge| {
        let (verb, files) = match merge.files {
            1 => ("write", "file anew"),
            _ => ("merge", "files"),
        };
        let bytes = size(merge.bytes);
        format!("compact would {verb} {} {files} ({bytes}): {}", grouped(merge.files), merge.reason)
    }));
    if layout.next.is_empty() {
        lines.push("compact would leave all as it is".to_owned());
    }
    lines
}

/// The versions, size and state of a file.
fn versions(file: &LayoutFile) -> String {
    match file.first_version == file.last_version {
        true => file.first_version.to_string(),
        false => format!("{}…{}", file.first_version, file.last_version),
    }
}

fn marks(file: &LayoutFile) -> String {
    let marks = [
        (file.object.is_none(), "in memory"),
        (file.superseded, "superseded"),
        (!file.unique, "has duplicates"),
    ];
    let partition = file.partition.as_deref().into_iter();
    let marks = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark);
    let marks: Vec<&str> = partition.chain(marks).collect();
    marks.join(", ")
}

/// Places of event times on a line that is `length` long.
#[derive(Debug, Clone, Copy)]
struct Scale {
    start: i128,
    span: i128,
    length: f64,
}

impl Scale {
    fn new(range: TimeRange, length: f64) -> Self {
        let start = i128::from(range.start().nanos());
        let span = (i128::from(range.end().nanos()) - start).max(1);
        Self { start, span, length }
    }

    #[expect(clippy::cast_precision_loss, reason = "a drawing has fewer places than floats digits")]
    fn place(&self, time: EventTime) -> f64 {
        let since = i128::from(time.nanos()) - self.start;
        self.length * (since as f64 / self.span as f64)
    }
}
