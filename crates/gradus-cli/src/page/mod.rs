//! Pages of HTML that need nothing else: styles, tables, plots as SVG; readable in light and dark.

pub(crate) mod cells;
pub(crate) mod intervals;
pub(crate) mod lines;
pub(crate) mod points;
mod ticks;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Colours of both schemes, and what everything looks like.
const STYLE: &str = include_str!("style.css");
/// Colours that tell few things apart: classes `c0` to `c7` of the style.
pub(crate) const COLOURS: usize = 8;

/// A whole page.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escape(title)
    )
}

/// A plot with its title and what it shows.
pub(crate) fn figure(title: &str, caption: &str, svg: &str) -> String {
    format!(
        "<figure>\n<h4>{}</h4>\n{svg}<figcaption>{}</figcaption>\n</figure>\n",
        escape(title),
        escape(caption)
    )
}

/// A table whose first row is the heading.
pub(crate) fn table(caption: &str, rows: &[Vec<String>]) -> String {
    table_of(caption, rows, false)
}

/// The same, with words in the last column.
pub(crate) fn explained_table(caption: &str, rows: &[Vec<String>]) -> String {
    table_of(caption, rows, true)
}

fn table_of(caption: &str, rows: &[Vec<String>], words: bool) -> String {
    let mut text = format!(
        "<div class=\"scroll\" tabindex=\"0\"><table>\n<caption>{}</caption>\n",
        escape(caption)
    );
    for (number, row) in rows.iter().enumerate() {
        let (cell, scope) = if number == 0 {
            ("th", " scope=\"col\"")
        } else {
            ("td", "")
        };
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, value)| {
                let class = if words && column + 1 == row.len() {
                    " class=\"words\""
                } else {
                    ""
                };
                format!("<{cell}{scope}{class}>{}</{cell}>", escape(value))
            })
            .collect();
        text.push_str(&format!("<tr>{}</tr>\n", cells.concat()));
    }
    text.push_str("</table></div>\n");
    text
}

/// What the colours `c0`, `c1`, … stand for.
pub(crate) fn key<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let entries: Vec<String> = names
        .enumerate()
        .map(|(number, name)| {
            format!(
                "<li><span class=\"swatch\" style=\"background: var(--c{})\"></span>{}</li>",
                number % COLOURS,
                escape(name)
            )
        })
        .collect();
    format!("<ul class=\"key\">{}</ul>\n", entries.concat())
}

/// A JPEG inside the page.
pub(crate) fn picture(jpeg: &[u8], alternative: &str) -> String {
    format!(
        "<img src=\"data:image/jpeg;base64,{}\" alt=\"{}\" loading=\"lazy\">",
        STANDARD.encode(jpeg),
        escape(alternative)
    )
}

/// Text in a page.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_users_cannot_become_markup() {
        let bad = "<script>\"&\"</script>".to_owned();
        let page = document(&bad, &table(&bad, &[vec![bad.clone()], vec![bad.clone()]]));
        assert!(!page.contains("<script>") && page.matches("&lt;script&gt;").count() == 4);
        assert!(picture(&[1, 2], &bad).contains("base64,AQI=") && !picture(&[], &bad).contains("<script"));
        assert!(key(std::iter::once(bad.as_str())).contains("&lt;script"));
    }
}
