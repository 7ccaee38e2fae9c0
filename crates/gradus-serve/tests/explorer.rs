//! The explorer in a real browser: load, hover, click, lasso, keyboard, search by file and by drop, two indexes, light and dark.

#![allow(clippy::unwrap_used)]

mod common;

use common::browser::Browser;
use common::{Running, picture};
use gradus_serve::Options;
use serde_json::Value;

const READY: &str = "return document.body.dataset.ready === 'true' && document.querySelectorAll('#classes li').length";

/// A point of a map on the screen: the one whose place among the items is `at`.
fn place(browser: &Browser, map: usize, at: usize) -> (f64, f64) {
    // The page keeps its maps to itself: the same arithmetic from what the server told.
    let script = format!(
        "return fetch('explorer/data').then((answer) => answer.json()).then((data) => {{
           const points = data.indexes[{map}].maps['neighbours'];
           const bounds = document.querySelectorAll('.plane')[{map}].getBoundingClientRect();
           const scale = Math.min(bounds.width, bounds.height) / 2 - 12;
           return [bounds.left + bounds.width / 2 + points[2 * {at}] * scale,
             bounds.top + bounds.height / 2 - points[2 * {at} + 1] * scale, data.indexes[{map}].ids[{at}]];
         }})"
    );
    let found = browser.script(&script);
    (found[0].as_f64().unwrap(), found[1].as_f64().unwrap())
}

/// How many pixels of the layer over a map are drawn on: rings and lines.
fn drawn(browser: &Browser, map: usize) -> u64 {
    let script = format!(
        "const canvas = document.querySelectorAll('canvas.over')[{map}];
         const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
         let count = 0;
         for (let at = 3; at < pixels.length; at += 4) if (pixels[at] > 0) count += 1;
         return count;"
    );
    browser.script(&script).as_u64().unwrap()
}

fn text(browser: &Browser, selector: &str) -> String {
    let value = browser.script(&format!(
        "return document.querySelector('{selector}')?.textContent ?? ''"
    ));
    value.as_str().unwrap().to_owned()
}

#[test]
fn it_shows_points_and_their_neighbours_in_two_indexes() {
    let Some(browser) = Browser::start(false) else { return };
    let server = Running::with(Options::default(), Some(Box::new(common::MeanColour)), true);
    browser.open(&format!("http://{}/", server.address));
    assert_eq!(browser.wait(READY), 3);
    assert_eq!(browser.script("return document.querySelectorAll('.plane').length"), 2);
    browser.screenshot("loaded");

    // Hovering shows the picture, and a ring on both maps.
    assert_eq!((drawn(&browser, 0), drawn(&browser, 1)), (0, 0));
    let (x, y) = place(&browser, 0, 3);
    browser.hover(x, y);
    browser.wait("return !document.getElementById('tip').hidden && document.querySelector('#tip img')?.naturalWidth");
    assert!(text(&browser, "#tip").contains("light"));
    assert!(drawn(&browser, 0) > 0 && drawn(&browser, 1) > 0);

    // Clicking shows neighbours in both indexes, with frames for hits and misses.
    browser.click(x, y);
    browser.wait("return document.getElementById('panel').dataset.shows === 'item'");
    let grids = browser.script("return [...document.querySelectorAll('#panel .grid')].map((grid) => [grid.querySelectorAll('.hit').length, grid.querySelectorAll('.miss').length])");
    for grid in grids.as_array().unwrap() {
        assert_eq!(grid[0].as_u64().unwrap() + grid[1].as_u64().unwrap(), 12, "{grids}");
        assert!(grid[0].as_u64().unwrap() >= 5, "{grids}");
    }
    assert_eq!(grids.as_array().unwrap().len(), 2);
    browser.wait(
        "return [...document.querySelectorAll('#panel img')].every((image) => image.complete && image.naturalWidth)",
    );
    browser.screenshot("neighbours");

    // A class: its members along a factor, in both indexes.
    browser.script("document.querySelector('#classes button').click()");
    browser.wait("return document.getElementById('panel').dataset.shows === 'class'");
    assert_eq!(
        browser.script("return document.querySelectorAll('.lineup svg').length"),
        2
    );
    assert_eq!(
        browser.script("return document.querySelectorAll('.lineup svg')[0].querySelectorAll('g').length"),
        8
    );
    browser.screenshot("class");

    // Colours by error and by factor.
    for choice in ["error", "factor:light", "precision", "class"] {
        browser.script(&format!(
            "const select = document.getElementById('colour'); select.value = '{choice}'; select.dispatchEvent(new Event('change')); return select.value"
        ));
    }
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn the_lasso_and_the_keyboard_choose_points() {
    let Some(browser) = Browser::start(true) else { return };
    let server = Running::new(Options::default());
    browser.open(&format!("http://{}/", server.address));
    browser.wait(READY);
    assert_eq!(
        browser.script("return matchMedia('(prefers-color-scheme: dark)').matches"),
        true
    );
    // One map: half of the plane.
    let bounds: Vec<f64> = browser
        .script("const b = document.querySelector('.plane').getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]")
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap())
        .collect();
    browser.script("document.getElementById('lasso').click()");
    let [left, top, right, bottom] = [bounds[0] + 2.0, bounds[1] + 2.0, bounds[2] - 2.0, bounds[3] - 2.0];
    browser.drag(
        &[(left, top), (right, top), (right, bottom), (left, bottom), (left, top)],
        true,
    );
    browser.wait("return document.getElementById('panel').dataset.shows === 'lasso'");
    assert_eq!(text(&browser, "#panel h2"), "24 items");
    browser.screenshot("lasso-dark");
    // Keys: the next point, select it, let go.
    browser.script("document.getElementById('lasso').click(); document.querySelector('canvas').focus()");
    browser.keys(&["\u{E014}", "\u{E015}"]);
    browser.wait("return !document.getElementById('tip').hidden");
    browser.keys(&["\u{E007}"]);
    browser.wait("return document.getElementById('panel').dataset.shows === 'item'");
    browser.keys(&["\u{E00C}"]);
    browser.wait("return document.getElementById('tip').hidden");
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn a_chosen_or_dropped_image_is_searched_with() {
    let Some(browser) = Browser::start(false) else { return };
    let server = Running::new(Options::default());
    browser.open(&format!("http://{}/", server.address));
    browser.wait(READY);
    let first = "return document.getElementById('panel').dataset.shows === 'search' && document.querySelector('#panel .grid button')?.title";
    browser.choose("#file", &server.folder.path().join("images/green/3.png"));
    assert_eq!(browser.wait(first), "green/3.png");
    // Dropped: the bytes of a picture as the browser hands them over.
    let bytes: Vec<Value> = picture(2, 5).into_iter().map(Value::from).collect();
    browser.script(&format!(
        "const file = new File([new Uint8Array({})], 'dropped.png', {{ type: 'image/png' }});
         const transfer = new DataTransfer();
         transfer.items.add(file);
         document.body.dispatchEvent(new DragEvent('dragenter', {{ bubbles: true, dataTransfer: transfer }}));
         document.body.dispatchEvent(new DragEvent('drop', {{ bubbles: true, dataTransfer: transfer }}));",
        Value::from(bytes)
    ));
    browser.wait("return document.querySelector('#panel h2')?.textContent.includes('dropped.png')");
    assert_eq!(browser.wait(first), "blue/5.png");
    browser.screenshot("search");
    // What is no image is answered in words.
    std::fs::write(server.folder.path().join("broken.png"), b"no picture").unwrap();
    browser.choose("#file", &server.folder.path().join("broken.png"));
    browser.wait("return document.querySelector('#panel p')?.textContent.includes('the image')");
}

#[test]
fn a_token_is_asked_for() {
    let Some(browser) = Browser::start(false) else { return };
    let server = Running::new(Options {
        token: Some("let me in".into()),
        ..Options::default()
    });
    browser.open(&format!("http://{}/", server.address));
    browser.wait("return document.getElementById('sign-in').open");
    browser.script(
        "document.getElementById('token').value = 'let me in'; document.querySelector('#sign-in button').click()",
    );
    assert_eq!(browser.wait(READY), 3);
    browser.script("document.querySelector('#classes button').click()");
    browser.wait("return document.querySelector('#panel .grid img')?.naturalWidth");
}
