//! Which classes are taken for which.

use super::{Analysis, ReportedRun};
use crate::page::cells::plot;
use crate::page::{figure, table};

/// Most classes of a matrix, the worst ones.
const MOST_CLASSES: usize = 30;
/// Most lines of a table.
const MOST_PAIRS: usize = 12;

pub(super) fn section(runs: &[ReportedRun], analyses: &[Analysis]) -> String {
    let mut text = String::from(
        "<p class=\"note\">The class of each query against the class of its nearest neighbour. Rows are the query's class, each adds up \
         to one; the stronger the colour, the more.</p>\n<div class=\"plots\">\n",
    );
    for (run, analysis) in runs.iter().zip(analyses) {
        let all = &analysis.confusions;
        let worst = &all.classes[..all.classes.len().min(MOST_CLASSES)];
        let names: Vec<String> = worst
            .iter()
            .map(|class| run.class_name(class.class).to_owned())
            .collect();
        let shares: Vec<Vec<f64>> = worst
            .iter()
            .map(|row| {
                let share = |column: u32| {
                    let count = if column == row.class {
                        row.hits
                    } else {
                        let pair = all
                            .pairs
                            .iter()
                            .find(|pair| pair.class == row.class && pair.found == column);
                        pair.map_or(0, |pair| pair.count)
                    };
                    count as f64 / row.queries.max(1) as f64
                };
                worst.iter().map(|column| share(column.class)).collect()
            })
            .collect();
        let title = format!("{}: confusions", run.name);
        let caption = if worst.len() < all.classes.len() {
            format!(
                "the {} worst of {} classes, the worst first",
                worst.len(),
                all.classes.len()
            )
        } else {
            "all classes, the worst first".to_owned()
        };
        text.push_str(&figure(&title, &caption, &plot(&title, &names, &shares)));
    }
    text.push_str("</div>\n<div class=\"plots\">\n");
    for (run, analysis) in runs.iter().zip(analyses) {
        let mut rows = vec![["class", "taken for", "queries"].map(str::to_owned).to_vec()];
        for pair in analysis.confusions.pairs.iter().take(MOST_PAIRS) {
            rows.push(vec![
                run.class_name(pair.class).to_owned(),
                run.class_name(pair.found).to_owned(),
                pair.count.to_string(),
            ]);
        }
        if rows.len() > 1 {
            text.push_str(&format!(
                "<div class=\"half\">{}</div>\n",
                table(&format!("{}: most frequent confusions", run.name), &rows)
            ));
        }
    }
    text.push_str("</div>\n");
    text
}
