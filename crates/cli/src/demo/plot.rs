//! A line in the terminal.

use textplots::{Chart, LabelBuilder, LabelFormat, Plot, Shape};

/// Dots: a character is two wide and four high.
const WIDTH_DOTS: u32 = 140;
const HEIGHT_DOTS: u32 = 48;

/// The values at equal distances, as a line.
pub(super) fn line(values: &[f32]) -> String {
    let points: Vec<(f32, f32)> =
        (0_u16..).zip(values).map(|(i, value)| (f32::from(i), *value)).collect();
    let Some((last, _)) = points.last() else { return String::new() };
    let shape = Shape::Lines(&points);
    let mut chart = Chart::new(WIDTH_DOTS, HEIGHT_DOTS, 0.0, *last);
    let chart = chart
        .lineplot(&shape)
        .x_label_format(LabelFormat::Custom(Box::new(|x| format!("day {}", x.round() + 1.0))))
        .y_label_format(LabelFormat::Custom(Box::new(|y| format!("{y:.0} °F"))));
    chart.axis();
    chart.figures();
    chart.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_labels_and_nothing_has_no_plot() {
        let text = line(&[20.0, 80.0, 50.0]);
        assert!(
            text.contains("80 °F") && text.contains("20 °F") && text.contains("day 3"),
            "{text}"
        );
        assert_eq!(line(&[]), "");
    }
}
