//! Points of the plane by group, as SVG.

use std::fmt::Write;

use super::escape;

const SIDE: f64 = 520.0;
const ROOM: f64 = 8.0;

/// One point inside `-1..=1`.
pub(crate) struct Point {
    pub(crate) at: [f32; 2],
    /// Where on the circle of colours it lies, 0 to 1.
    pub(crate) hue: f64,
    /// Shown when pointed at.
    pub(crate) label: String,
}

/// Draws points; `title` is what the picture is called aloud.
pub(crate) fn plot(title: &str, points: &[Point]) -> String {
    let radius = if points.len() > 1500 { 2.0 } else { 3.2 };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {SIDE} {SIDE}\" width=\"{SIDE}\" role=\"img\" aria-label=\"{}\">\n",
        escape(title)
    );
    for point in points {
        let place = |value: f32| ROOM + (f64::from(value) + 1.0) / 2.0 * (SIDE - 2.0 * ROOM);
        let _ = writeln!(
            svg,
            "<circle class=\"point\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"hsl({:.0} 62% 50%)\"><title>{}</title></circle>",
            place(point.at[0]),
            SIDE - place(point.at[1]),
            point.hue * 360.0,
            escape(&point.label)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Colours of numbered things that lie far apart for neighbouring numbers (the golden angle).
pub(crate) fn hue(number: u32) -> f64 {
    (f64::from(number) * 0.618_033_988_749_895).fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_are_corners() {
        let point = |at| Point {
            at,
            hue: 0.5,
            label: "<x>".into(),
        };
        let svg = plot("map", &[point([-1.0, -1.0]), point([1.0, 1.0])]);
        assert!(svg.contains("cx=\"8.0\" cy=\"512.0\"") && svg.contains("cx=\"512.0\" cy=\"8.0\""));
        assert!(svg.contains("&lt;x&gt;") && svg.contains("hsl(180 "));
        assert!((hue(0) - hue(1)).abs() > 0.3 && (hue(1) - hue(2)).abs() > 0.3);
    }
}
