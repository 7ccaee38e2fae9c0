//! Rows of points with intervals, as SVG.

use std::fmt::Write;

use super::escape;
use super::ticks::ticks;

/// Pixels: the whole width, room for labels, height of a row, room for the axis.
const WIDTH: f64 = 640.0;
const LABELS: f64 = 190.0;
const ROW: f64 = 24.0;
const AXIS: f64 = 26.0;
/// Characters of a label that fit.
const LONGEST: usize = 26;

/// One row.
pub(crate) struct Row<'a> {
    pub(crate) label: &'a str,
    pub(crate) centre: f64,
    pub(crate) interval: Option<[f64; 2]>,
    pub(crate) points: Vec<f64>,
    pub(crate) strong: bool,
}

/// Draws rows over a common axis; `zero` brings zero into view and marks it.
pub(crate) fn plot(rows: &[Row], zero: bool) -> String {
    let values = rows.iter().flat_map(|row| {
        let interval = row.interval.into_iter().flatten();
        interval.chain(row.points.iter().copied()).chain([row.centre])
    });
    let [low, high] = values
        .chain(zero.then_some(0.0))
        .filter(|value| value.is_finite())
        .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| {
            [low.min(value), high.max(value)]
        });
    let room = ((high - low) * 0.04).max(1e-4);
    let (low, high) = (low - room, high + room);
    let x = |value: f64| LABELS + (value - low) / (high - low) * (WIDTH - LABELS - 12.0);
    let bottom = ROW * rows.len() as f64 + 6.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" width=\"{WIDTH}\" role=\"img\">\n",
        bottom + AXIS
    );
    // Writing to a string cannot fail.
    let mut put = |line: String| {
        let _ = writeln!(svg, "{line}");
    };
    let (ticks, digits) = ticks(low, high);
    for tick in ticks {
        let at = x(tick);
        put(format!(
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{bottom:.1}\"/>"
        ));
        put(format!(
            "<text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick:.digits$}</text>",
            bottom + 17.0
        ));
    }
    if zero {
        let at = x(0.0);
        put(format!(
            "<line class=\"zero\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{bottom:.1}\"/>"
        ));
    }
    for (number, row) in rows.iter().enumerate() {
        let y = ROW * (number as f64 + 0.5) + 3.0;
        let mut label: String = row.label.chars().take(LONGEST).collect();
        if row.label.chars().count() > LONGEST {
            label.push('…');
        }
        let interval = row
            .interval
            .map_or_else(String::new, |[low, high]| format!(" [{low:.4}, {high:.4}]"));
        put(format!(
            "<g><title>{}: {:.4}{interval}</title>",
            escape(row.label),
            row.centre
        ));
        put(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LABELS - 10.0,
            y + 4.0,
            escape(&label)
        ));
        if let Some([low, high]) = row.interval {
            let strong = if row.strong { " strong" } else { "" };
            put(format!(
                "<line class=\"interval{strong}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                x(low),
                x(high)
            ));
        }
        for &point in &row.points {
            put(format!(
                "<circle class=\"seed\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"3\"/>",
                x(point)
            ));
        }
        put(format!(
            "<rect class=\"centre\" x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\"/></g>",
            x(row.centre) - 4.0,
            y - 4.0
        ));
    }
    put("</svg>".to_owned());
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_where_their_numbers_are() {
        let row = |label, centre, interval| Row {
            label,
            centre,
            interval,
            points: vec![centre],
            strong: false,
        };
        let svg = plot(&[row("a <b>", 1.0, Some([0.5, 1.5])), row("c", 0.0, None)], true);
        assert!(
            svg.contains("a &lt;b&gt;")
                && svg.matches("<circle").count() == 2
                && svg.matches("class=\"interval\"").count() == 1
        );
        let of = |name: &str| -> Vec<f64> {
            let parts = svg.split(name).skip(1);
            parts
                .map(|part| part.split('"').next().unwrap().parse().unwrap())
                .collect()
        };
        // The middle of the interval is its centre; zero is where the second row lies.
        let (points, ends) = (
            of("cx=\""),
            (of("interval\" x1=\"")[0], svg.split("interval\" x1=\"").nth(1).unwrap()),
        );
        let end: f64 = ends
            .1
            .split("x2=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(((ends.0 + end) / 2.0 - points[0]).abs() < 0.11, "{svg}");
        assert!((of("zero\" x1=\"")[0] - points[1]).abs() < 0.11);
        assert!(!svg.contains("NaN") && !plot(&[row("same", 0.3, None)], false).contains("NaN"));
    }
}
