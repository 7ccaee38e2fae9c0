//! A matrix of shares as shaded cells, as SVG.

use std::fmt::Write;

use super::escape;

/// Characters of a name that fit, and their width.
const LONGEST: usize = 22;
const CHARACTER: f64 = 6.2;

/// Draws `rows x columns` shares from 0 to 1; `names` are those of both.
pub(crate) fn plot(title: &str, names: &[String], shares: &[Vec<f64>]) -> String {
    let count = names.len().max(1);
    let cell = (360.0 / count as f64).clamp(9.0, 26.0);
    let side = cell * count as f64;
    let longest = names
        .iter()
        .map(|name| name.chars().count().min(LONGEST + 1))
        .max()
        .unwrap_or(0);
    let labels = longest as f64 * CHARACTER + 12.0;
    let whole = labels + side + 4.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {whole:.1} {whole:.1}\" width=\"{whole:.0}\" role=\"img\" aria-label=\"{}\">\n",
        escape(title)
    );
    // Writing to a string cannot fail.
    let mut put = |line: String| {
        let _ = writeln!(svg, "{line}");
    };
    for (row, name) in names.iter().enumerate() {
        let short: String = if name.chars().count() > LONGEST {
            name.chars().take(LONGEST).chain(['…']).collect()
        } else {
            name.clone()
        };
        let middle = labels + (row as f64 + 0.5) * cell;
        let size = (cell - 1.0).min(11.0);
        put(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" style=\"font-size: {size}px\">{}</text>",
            labels - 5.0,
            middle + size / 3.0,
            escape(&short)
        ));
        put(format!(
            "<text transform=\"translate({:.1} {:.1}) rotate(-90)\" style=\"font-size: {size}px\">{}</text>",
            middle + size / 3.0,
            labels - 5.0,
            escape(&short)
        ));
        for (column, &share) in shares[row].iter().enumerate() {
            let (x, y) = (labels + column as f64 * cell, labels + row as f64 * cell);
            if share > 0.0 {
                put(format!(
                    "<rect class=\"cell\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\" fill-opacity=\"{:.3}\">\
                     <title>{} found {}: {:.1} %</title></rect>",
                    share.sqrt(),
                    escape(name),
                    escape(&names[column]),
                    share * 100.0
                ));
            }
            if row == column {
                put(format!(
                    "<rect class=\"diagonal\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\"/>"
                ));
            }
        }
    }
    put(format!(
        "<rect class=\"diagonal\" x=\"{labels:.1}\" y=\"{labels:.1}\" width=\"{side:.1}\" height=\"{side:.1}\"/>\n</svg>"
    ));
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_shaded_by_their_shares() {
        let names = ["a".to_owned(), "a class with a very long name".to_owned()];
        let svg = plot("matrix", &names, &[vec![0.25, 0.75], vec![0.0, 1.0]]);
        assert_eq!(svg.matches("class=\"cell\"").count(), 3);
        assert!(svg.contains("fill-opacity=\"0.500\"") && svg.contains("a class with a very lo…"));
        assert!(plot("empty", &[], &[]).contains("</svg>"));
    }
}
