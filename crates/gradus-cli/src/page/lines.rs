//! Curves over common axes, as SVG.

use std::fmt::Write;

use super::ticks::ticks;
use super::{COLOURS, escape};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 44.0;

/// One curve.
pub(crate) struct Line {
    /// What it is; shown when pointed at.
    pub(crate) label: String,
    /// Number of its colour.
    pub(crate) colour: usize,
    /// Its points, by rising x.
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) look: Look,
}

/// How a curve is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Solid,
    Dashed,
    /// Solid, with the area to zero.
    Filled,
    /// Solid, with its points.
    Marked,
}

/// What the axes say.
pub(crate) struct Axes<'a> {
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    /// Powers of ten on this axis; points at 0 and below are left out.
    pub(crate) logarithmic: [bool; 2],
    /// Whether 0 lies on the vertical axis in any case.
    pub(crate) from_zero: bool,
}

/// Draws curves; `title` is what the picture is called aloud.
pub(crate) fn plot(title: &str, lines: &[Line], axes: &Axes<'_>) -> String {
    let usable = |&(x, y): &(f64, f64)| -> Option<(f64, f64)> {
        let on = |value: f64, axis: usize| {
            let value = if axes.logarithmic[axis] { value.log10() } else { value };
            value.is_finite().then_some(value)
        };
        Some((on(x, 0)?, on(y, 1)?))
    };
    let curves: Vec<Vec<(f64, f64)>> = lines
        .iter()
        .map(|line| line.points.iter().filter_map(usable).collect())
        .collect();
    let bounds = |of: fn(&(f64, f64)) -> f64, room: f64, zero: bool| {
        let values = curves.iter().flatten().map(of).chain(zero.then_some(0.0));
        let [low, high] = values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| {
            [low.min(value), high.max(value)]
        });
        if low > high {
            return [0.0, 1.0];
        }
        let alone = if high == 0.0 { 0.5 } else { high.abs() * 0.1 };
        let extra = if high - low < 1e-9 * high.abs().max(low.abs()) || high == low {
            alone
        } else {
            (high - low) * room
        };
        [if zero && low == 0.0 { 0.0 } else { low - extra }, high + extra]
    };
    let [left, right] = bounds(|point| point.0, 0.0, false);
    let [low, high] = bounds(|point| point.1, 0.05, axes.from_zero && !axes.logarithmic[1]);
    let x = |value: f64| LEFT + (value - left) / (right - left) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" role=\"img\" aria-label=\"{}\">\n",
        escape(title)
    );
    // Writing to a string cannot fail.
    let mut put = |line: String| {
        let _ = writeln!(svg, "{line}");
    };
    let bottom = HEIGHT - BOTTOM;
    for (tick, name) in named_ticks(left, right, axes.logarithmic[0]) {
        let at = x(tick);
        put(format!(
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/><text class=\"tick\" x=\"{at:.1}\" \
             y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            bottom + 16.0
        ));
    }
    for (tick, name) in named_ticks(low, high, axes.logarithmic[1]) {
        let at = y(tick);
        put(format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"tick\" x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{name}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        ));
    }
    put(format!(
        "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 8.0,
        escape(axes.x)
    ));
    put(format!(
        "<text class=\"tick\" transform=\"translate(13 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        f64::midpoint(TOP, bottom),
        escape(axes.y)
    ));
    for (line, points) in lines.iter().zip(&curves) {
        let colour = line.colour % COLOURS;
        let path: Vec<String> = points
            .iter()
            .map(|&(a, b)| format!("{:.1} {:.1}", x(a), y(b)))
            .collect();
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            continue;
        };
        put(format!("<g><title>{}</title>", escape(&line.label)));
        if line.look == Look::Filled {
            put(format!(
                "<path class=\"area\" style=\"fill: var(--c{colour})\" d=\"M{:.1} {bottom} L{} L{:.1} {bottom} Z\"/>",
                x(first.0),
                path.join(" L"),
                x(last.0)
            ));
        }
        let dashed = if line.look == Look::Dashed { " dashed" } else { "" };
        put(format!(
            "<path class=\"line{dashed}\" style=\"stroke: var(--c{colour})\" d=\"M{}\"/>",
            path.join(" L")
        ));
        if line.look == Look::Marked || points.len() == 1 {
            for &(a, b) in points {
                put(format!(
                    "<circle style=\"fill: var(--c{colour})\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                    x(a),
                    y(b)
                ));
            }
        }
        put("</g>".to_owned());
    }
    put("</svg>".to_owned());
    svg
}

fn named_ticks(low: f64, high: f64, logarithmic: bool) -> Vec<(f64, String)> {
    if logarithmic {
        let powers: Vec<i32> = (low.ceil() as i32..=high.floor() as i32).collect();
        let step = powers.len().div_ceil(8).max(1);
        if powers.len() > 1 {
            let name = |power: i32| match power {
                -3..=4 => format!("{}", 10_f64.powi(power)),
                _ => format!("1e{power}"),
            };
            return powers
                .into_iter()
                .step_by(step)
                .map(|power| (f64::from(power), name(power)))
                .collect();
        }
        let (found, _) = ticks(low, high);
        return found
            .into_iter()
            .map(|tick| (tick, format!("{:.2e}", 10_f64.powf(tick))))
            .collect();
    }
    let (found, digits) = ticks(low, high);
    found
        .into_iter()
        .map(|tick| (tick, format!("{tick:.digits$}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)], look: Look) -> Line {
        Line {
            label: "a <b>".into(),
            colour: 9,
            points: points.to_vec(),
            look,
        }
    }

    const PLAIN: Axes<'_> = Axes {
        x: "epoch",
        y: "loss",
        logarithmic: [false; 2],
        from_zero: false,
    };

    #[test]
    fn points_lie_where_their_numbers_are() {
        let svg = plot(
            "t",
            &[line(&[(0.0, 1.0), (5.0, 3.0), (10.0, 2.0)], Look::Marked)],
            &PLAIN,
        );
        let of = |name: &str| -> Vec<f64> {
            let parts = svg.split(name).skip(1);
            parts
                .map(|part| part.split('"').next().unwrap().parse().unwrap())
                .collect()
        };
        let (x, y) = (of("cx=\""), of("cy=\""));
        assert!(
            (x[0] - LEFT).abs() < 0.1 && (x[2] - (WIDTH - RIGHT)).abs() < 0.1 && (x[1] * 2.0 - x[0] - x[2]).abs() < 0.2
        );
        // Up is more, and the middle value is in the middle.
        assert!(y[1] < y[2] && y[2] < y[0] && (y[2] * 2.0 - y[0] - y[1]).abs() < 0.2);
        assert!(svg.contains("a &lt;b&gt;") && svg.contains("--c1)"));
    }

    #[test]
    fn nothing_one_point_and_powers_have_plots() {
        for look in [Look::Solid, Look::Dashed, Look::Filled] {
            for points in [
                &[][..],
                &[(1.0, 1.0)],
                &[(1.0, f64::NAN), (2.0, 3.0)],
                &[(0.0, 0.0), (1.0, 0.0)],
            ] {
                for logarithmic in [[false; 2], [true; 2]] {
                    let svg = plot("t", &[line(points, look)], &Axes { logarithmic, ..PLAIN });
                    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                }
            }
        }
        let svg = plot(
            "t",
            &[line(&[(1e-5, 1.0), (1.0, 2.0)], Look::Solid)],
            &Axes {
                logarithmic: [true, false],
                ..PLAIN
            },
        );
        assert!(svg.contains(">1e-5<") && svg.contains(">0.01<"));
    }
}
