//! What a threshold on the similarity can tell.

use gradus_core::evaluation::PairScores;

use super::{Analysis, ReportedRun};
use crate::page::lines::{Axes, Line, Look, plot};
use crate::page::{figure, table};

/// Shares of pairs of two classes that may be accepted.
const RATES: [f64; 3] = [0.1, 0.01, 0.001];
/// Stretches of the histogram that is shown.
const SHOWN: usize = 100;

pub(super) fn section(runs: &[ReportedRun], analyses: &[Analysis]) -> String {
    let mut text = String::from("<div class=\"plots\">\n");
    let lines: Vec<Line> = runs
        .iter()
        .zip(analyses)
        .enumerate()
        .map(|(number, (run, analysis))| Line {
            label: run.name.clone(),
            colour: number,
            points: thinned(
                analysis
                    .pairs
                    .curve()
                    .iter()
                    .map(|point| (point.false_accept, point.true_accept))
                    .filter(|point| point.0 >= 1e-5)
                    .collect(),
            ),
            look: Look::Solid,
        })
        .collect();
    let axes = Axes {
        x: "pairs of two classes accepted",
        y: "pairs of one class accepted",
        logarithmic: [true, false],
        from_zero: true,
    };
    let title = "Receiver operating characteristic";
    text.push_str(&figure(
        title,
        "Every threshold on the cosine similarity of two images: the share of true matches it accepts against the share of false ones.",
        &plot(title, &lines, &axes),
    ));
    for (run, analysis) in runs.iter().zip(analyses) {
        let line = |label: &str, counts: &[u64], colour| Line {
            label: label.to_owned(),
            colour,
            points: histogram(&analysis.pairs, counts),
            look: Look::Filled,
        };
        let axes = Axes {
            x: "cosine similarity",
            y: "density",
            logarithmic: [false; 2],
            from_zero: true,
        };
        let title = format!("{}: similarity of pairs", run.name);
        let lines = [
            line("pairs of one class", &analysis.pairs.same, 2),
            line("pairs of two classes", &analysis.pairs.different, 7),
        ];
        text.push_str(&figure(
            &title,
            "Green: pairs of one class; red: pairs of two classes. The less they overlap, the better one threshold serves all.",
            &plot(&title, &lines, &axes),
        ));
    }
    text.push_str("</div>\n");
    let mut rows = vec![
        ["run", "false matches allowed", "threshold", "true matches found"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (run, analysis) in runs.iter().zip(analyses) {
        for rate in RATES {
            let point = analysis.pairs.at_false_accept(rate);
            rows.push(vec![
                run.name.clone(),
                format!("{:.1} %", rate * 100.0),
                format!("{:.3}", point.threshold),
                format!("{:.1} %", point.true_accept * 100.0),
            ]);
        }
    }
    text.push_str(&table(
        "Thresholds of these test classes, to 0.001. For thresholds to decide by, calibrate on classes of your own.",
        &rows,
    ));
    text
}

/// Counts as a density over few stretches, without the empty ends.
fn histogram(scores: &PairScores, counts: &[u64]) -> Vec<(f64, f64)> {
    let each = counts.len() / SHOWN;
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let width = 2.0 / SHOWN as f64;
    let all: Vec<(f64, f64)> = counts
        .chunks(each)
        .enumerate()
        .map(|(bin, chunk)| {
            let centre = scores.centre(bin * each) + (each as f64 - 1.0) / counts.len() as f64;
            (centre, chunk.iter().sum::<u64>() as f64 / total / width)
        })
        .collect();
    let first = all
        .iter()
        .position(|point| point.1 > 0.0)
        .unwrap_or(0)
        .saturating_sub(1);
    let last = all.iter().rposition(|point| point.1 > 0.0).unwrap_or(0);
    all[first..(last + 2).min(all.len())].to_vec()
}

/// At most a few hundred points of a curve.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(400).max(1);
    let last = points.last().copied();
    points.iter().copied().step_by(step).chain(last).collect()
}
