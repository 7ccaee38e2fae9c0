//! How many directions the embeddings use.

use super::{Analysis, ReportedRun};
use crate::page::figure;
use crate::page::lines::{Axes, Line, Look, plot};

pub(super) fn section(runs: &[ReportedRun], analyses: &[Analysis]) -> String {
    let lines: Vec<Line> = runs
        .iter()
        .zip(analyses)
        .enumerate()
        .map(|(number, (run, analysis))| Line {
            label: run.name.clone(),
            colour: number,
            points: (analysis.spectrum.iter().enumerate())
                .map(|(place, &share)| ((place + 1) as f64, share))
                .collect(),
            look: Look::Solid,
        })
        .collect();
    let axes = Axes {
        x: "singular value, the largest first",
        y: "share of the sum",
        logarithmic: [false, true],
        from_zero: false,
    };
    let numbers: Vec<String> = runs
        .iter()
        .filter_map(|run| {
            let rank = run.measures.get("effective_rank")?.as_f64()?;
            Some(format!("{}: effective rank {rank:.1}", run.name))
        })
        .collect();
    let caption = format!(
        "Singular values of the embeddings. A curve that falls late uses more directions. {}",
        numbers.join("; ")
    );
    let svg = plot("Singular values", &lines, &axes);
    format!(
        "<div class=\"plots\">\n{}</div>\n",
        figure("Singular values", &caption, &svg)
    )
}
