//! A layout as SVG, alone or within a page of HTML.

use std::fmt::Write;

use tidelog::{EventTime, LayoutFile, SeriesLayout, TimeRange};

use super::{Scale, marks, outlook, summary, versions};
use crate::progress::{grouped, size};

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 20.0;
const TOP: f64 = 70.0;
const LANE: f64 = 22.0;
const BOX: f64 = 18.0;
/// A file of one instant is seen, too.
const BOX_WIDTH_MIN: f64 = 2.0;
const TICKS: i128 = 4;
/// A label takes about so much for each character.
const CHARACTER: f64 = 6.5;

/// The layout as an SVG document.
pub(crate) fn picture(layout: &SeriesLayout) -> String {
    let lanes = layout.depth.max(1) as f64;
    let height = TOP + lanes * LANE + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{path}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" font-size=\"16\">{path} at {version}</text>\n\
         <text x=\"{MARGIN}\" y=\"44\" fill=\"#555\">{summary}</text>\n",
        path = escaped(layout.path.as_str()),
        version = layout.version,
        summary = escaped(&summary(layout)),
    );
    if let Some(range) = layout.range {
        let scale = Scale::new(range, WIDTH - 2.0 * MARGIN);
        ticks(&mut svg, range, &scale, height);
        let newest = layout.version.number().max(1) as f64;
        for file in &layout.files {
            boxed(&mut svg, file, &scale, newest);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// The layout as a page: the picture, and a table of the files.
pub(crate) fn page(layout: &SeriesLayout) -> String {
    let path = escaped(layout.path.as_str());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{path}</title>\n\
         <style>body {{ font-family: sans-serif; margin: 2em }} table {{ border-collapse: collapse }} \
         td, th {{ padding: 0.2em 0.8em; text-align: left; border-bottom: 1px solid #ddd }} \
         td.n {{ text-align: right }}</style>\n</head>\n<body>\n{}<table>\n<tr><th>from</th><th>to</th>\
         <th>versions</th><th>rows</th><th>size</th><th>row groups</th><th></th><th>file</th></tr>\n",
        picture(layout)
    );
    for file in &layout.files {
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td>{}</td><td>{}</td></tr>",
            file.range.start(),
            file.range.end(),
            versions(file),
            grouped(file.rows),
            size(file.bytes),
            file.row_groups,
            marks(file),
            escaped(file.object.as_deref().unwrap_or_default()),
        );
    }
    page.push_str("</table>\n");
    for line in outlook(layout) {
        let _ = writeln!(page, "<p>{}</p>", escaped(&line));
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn ticks(svg: &mut String, range: TimeRange, scale: &Scale, height: f64) {
    let (start, end) = (i128::from(range.start().nanos()), i128::from(range.end().nanos()));
    let base = height - 30.0;
    for tick in 0..=TICKS {
        let nanos = start + (end - start) * tick / TICKS;
        let Ok(nanos) = i64::try_from(nanos) else { continue };
        let time = EventTime::from_nanos(nanos);
        let x = MARGIN + scale.place(time);
        let anchor = match tick {
            0 => "start",
            TICKS => "end",
            _ => "middle",
        };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{base:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"#555\">{time}</text>",
            base + 16.0
        );
    }
}

/// A file as a box, darker the newer its versions are; what it is, in words, where it is pointed at.
fn boxed(svg: &mut String, file: &LayoutFile, scale: &Scale, newest: f64) {
    let x = MARGIN + scale.place(file.range.start());
    let width = MARGIN + scale.place(file.range.end()) - x;
    let width = width.max(BOX_WIDTH_MIN);
    let y = TOP + file.lane as f64 * LANE;
    let age = file.last_version.number() as f64 / newest;
    let lightness = 78.0 - 38.0 * age;
    let (hue, dashes) = match (file.object.is_none(), file.superseded) {
        (true, _) => (30, ""),
        (false, true) => (0, " stroke-dasharray=\"3 2\""),
        (false, false) => (210, ""),
    };
    let label = versions(file);
    let marks = match marks(file) {
        none if none.is_empty() => none,
        some => format!("\n{some}"),
    };
    let words = format!(
        "{label}\n{}\n{} rows by {}, {}, {} row groups{marks}\n{}",
        file.range,
        grouped(file.rows),
        file.order,
        size(file.bytes),
        file.row_groups,
        file.object.as_deref().unwrap_or_default()
    );
    let _ = writeln!(
        svg,
        "<g><title>{}</title><rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{BOX}\" \
         rx=\"2\" fill=\"hsl({hue} 60% {lightness:.0}%)\" stroke=\"#345\" stroke-width=\"0.5\"{dashes}/>",
        escaped(&words)
    );
    if width > CHARACTER * label.chars().count() as f64 + 6.0 {
        let (x, y) = (x + 4.0, y + 13.0);
        let _ = writeln!(svg, "<text x=\"{x:.2}\" y=\"{y:.1}\" fill=\"white\">{label}</text>");
    }
    svg.push_str("</g>\n");
}

/// Text that means nothing to XML or HTML but itself.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML knows no such characters, however they are written.
            '\u{FFFE}' | '\u{FFFF}' => safe.push('\u{FFFD}'),
            c if c.is_control() && c != '\n' => safe.push('\u{FFFD}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_user_names_is_markup() {
        assert_eq!(
            escaped("<script>\"&'\u{FFFE}\u{1}"),
            "&lt;script&gt;&quot;&amp;&#39;\u{FFFD}\u{FFFD}"
        );
    }
}
