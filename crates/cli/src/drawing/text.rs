//! A layout in characters.

use tidelog::{LayoutFile, SeriesLayout};

use super::{Scale, marks, outlook, summary, versions};
use crate::output;
use crate::progress::{grouped, size};

/// Files that get a line of their own.
const LINES_MAX: usize = 60;
/// Columns of a bar.
const BAR_COLUMNS: usize = 48;
/// From few files to many.
const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The layout as lines: how many files there are where, then a bar for each file.
pub(crate) fn text(layout: &SeriesLayout) -> String {
    let mut text = format!("{} at {}: {}\n", layout.path, layout.version, summary(layout));
    let Some(range) = layout.range else { return text };
    text.push_str(&format!("event times {range}\n\n"));
    let scale = Scale::new(range, BAR_COLUMNS as f64);
    let bars: Vec<(usize, usize)> = layout.files.iter().map(|file| bar(file, &scale)).collect();
    text.push_str(&format!("{}  files at a time\n", heights(&bars)));
    let shown = layout.files.iter().zip(&bars).take(LINES_MAX);
    let rows: Vec<Vec<String>> = shown.map(|(file, bar)| row(file, *bar)).collect();
    let header = ["over event time", "versions", "rows", "size", "order", "", "from", "to"];
    text.push_str(&output::columns(Some(&header), &rows, &[2, 3]));
    let more = layout.files.len().saturating_sub(LINES_MAX);
    if more > 0 {
        text.push_str(&format!(
            "and {} files more; --svg or --html draws all\n",
            grouped(more as u64)
        ));
    }
    text.push_str(&format!("\n{}\n", outlook(layout).join("\n")));
    text
}

/// The columns of a file's bar: the first, and the one after the last; at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place lies between 0 and the columns of a bar"
)]
fn bar(file: &LayoutFile, scale: &Scale) -> (usize, usize) {
    let column = |place: f64| (place.floor().max(0.0) as usize).min(BAR_COLUMNS - 1);
    let first = column(scale.place(file.range.start()));
    (first, column(scale.place(file.range.end())) + 1)
}

/// How many files have rows at each column.
fn heights(bars: &[(usize, usize)]) -> String {
    let counts: Vec<usize> = (0..BAR_COLUMNS)
        .map(|at| bars.iter().filter(|(first, end)| (*first..*end).contains(&at)).count())
        .collect();
    let most = counts.iter().copied().max().unwrap_or_default().max(1);
    let steps = HEIGHTS.len() - 1;
    counts.iter().map(|count| HEIGHTS[(count * steps).div_ceil(most)]).collect()
}

fn row(file: &LayoutFile, (first, end): (usize, usize)) -> Vec<String> {
    let full = if file.object.is_none() {
        '░'
    } else if file.superseded {
        '▒'
    } else {
        '█'
    };
    let filled: String = std::iter::repeat_n(full, end - first).collect();
    let bar = format!("{:first$}{filled}{:rest$}", "", "", rest = BAR_COLUMNS - end);
    vec![
        bar,
        versions(file),
        grouped(file.rows),
        size(file.bytes),
        file.order.to_string(),
        marks(file),
        file.range.start().to_string(),
        file.range.end().to_string(),
    ]
}
