//! Answers as one page of pictures: nothing is fetched from elsewhere, readable in light and dark.

use std::path::Path;

use gradus_core::data::Source;

use super::{Searched, is_match, verdict};
use crate::thumbnail;

/// Colours of both schemes, and how pictures stand side by side.
const STYLE: &str = include_str!("gallery.css");
/// Longest side of a picture, in pixels.
const SIDE: u32 = 192;

/// The page.
pub(super) fn page(count: usize, root: Option<&Path>, searched: &[Searched], filters: &[String]) -> String {
    let mut body = String::from("<h1>gradus search</h1>\n");
    let filter = if filters.is_empty() {
        String::new()
    } else {
        format!(", among those with {}", filters.join(", "))
    };
    body.push_str(&format!(
        "<p>{} searched in {} items{}.</p>\n",
        if searched.len() == 1 {
            "One query".to_owned()
        } else {
            format!("{} queries", searched.len())
        },
        count,
        escape(&filter)
    ));
    for one in searched {
        body.push_str(&section(root, one));
    }
    body.push_str(
        "<p class=\"note\">Scores are cosine similarities, -1 to 1. Pictures with a dashed frame score less than the threshold.</p>\n",
    );
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\">\n<title>gradus search</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

fn section(root: Option<&Path>, searched: &Searched) -> String {
    let answer = &searched.answer;
    let mut text = format!(
        "<section>\n<h2>{}: {}</h2>\n<div class=\"row\">\n{}",
        escape(&searched.name),
        escape(&verdict(answer)),
        figure(
            "query",
            searched.image.as_ref(),
            &format!("query {}", searched.name),
            &[("query".to_owned(), "kind"), (searched.name.clone(), "name")],
        )
    );
    for (number, hit) in answer.hits.iter().enumerate() {
        let image = root
            .as_ref()
            .zip(hit.image.as_ref())
            .map(|(root, image)| Source::File(root.join(image)));
        let class = hit.class.clone().unwrap_or_default();
        let mut lines = vec![
            (format!("{}. {:.4}", number + 1, hit.score), "kind"),
            (class.clone(), "class"),
            (hit.id.clone(), "name"),
        ];
        lines.extend(
            hit.payload
                .iter()
                .map(|(name, value)| (format!("{name}: {}", plain(value)), "payload")),
        );
        let kind = if is_match(answer, hit) { "hit" } else { "hit below" };
        let alternative = format!("hit {}: {class} {}, score {:.4}", number + 1, hit.id, hit.score);
        text.push_str(&figure(kind, image.as_ref(), &alternative, &lines));
    }
    text.push_str("</div>\n</section>\n");
    text
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn figure(kind: &str, image: Option<&Source>, alternative: &str, lines: &[(String, &str)]) -> String {
    let picture = image
        .and_then(|source| thumbnail::data_url(source, SIDE).ok())
        .map_or_else(
            || {
                format!(
                    "<div class=\"none\" role=\"img\" aria-label=\"{}\">no picture</div>",
                    escape(alternative)
                )
            },
            |url| format!("<img src=\"{url}\" alt=\"{}\">", escape(alternative)),
        );
    let lines: Vec<String> = lines
        .iter()
        .filter(|(line, _)| !line.is_empty())
        .map(|(line, class)| format!("<span class=\"{class}\">{}</span>", escape(line)))
        .collect();
    format!(
        "<figure class=\"{kind}\">{picture}<figcaption>{}</figcaption></figure>\n",
        lines.concat()
    )
}

/// Text in a page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
