//! What the server answers, over real sockets.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::time::Duration;

use common::{Answer, MEMBERS, Running, picture};
use gradus_serve::Options;
use serde_json::json;

#[test]
fn vectors_find_their_items_with_filter_and_threshold() {
    let server = Running::new(Options::default());
    let red = json!([90.0, -90.0, -90.0]);
    let found = server.search(&json!({"vector": red, "k": 3}));
    assert_eq!(found.ids().len(), 3);
    assert!(found.ids().iter().all(|id| id.starts_with("red/")));
    let hit = &found.json()["hits"][0];
    assert!(hit["score"].as_f64().unwrap() > 0.9 && hit["class"] == "red" && hit["payload"]["light"].is_number());
    let blue = server.search(&json!({"vector": red, "k": 50, "filter": ["class=blue", "light>=8"]}));
    assert_eq!(blue.ids().len(), MEMBERS - 2);
    assert!(
        server
            .search(&json!({"vector": red, "filter": "class=blue", "threshold": 0.5}))
            .ids()
            .is_empty()
    );
    assert_eq!(server.search(&json!({"vector": red})).ids().len(), 5);
}

#[test]
fn images_find_themselves_raw_and_in_a_form() {
    let server = Running::new(Options::default());
    let bytes = picture(1, 3);
    for kind in ["image/png", "application/octet-stream", "image/jpeg"] {
        let found = server.ask("POST", "/search?k=2", &[("Content-Type", kind)], &bytes);
        assert_eq!(found.ids()[0], "green/3.png");
        assert_eq!(found.ids().len(), 2);
    }
    let mut form = b"--Edge\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--Edge\r\nContent-Disposition: form-data; \
                     name=\"image\"; filename=\"x.png\"\r\nContent-Type: image/png\r\n\r\n"
        .to_vec();
    form.extend(&bytes);
    form.extend(b"\r\n--Edge--\r\n");
    let kind = [("Content-Type", "multipart/form-data; boundary=Edge")];
    let found = server.ask("POST", "/search?k=1&filter=class%3Dgreen", &kind, &form);
    assert_eq!(found.ids(), ["green/3.png"]);
}

#[test]
fn without_a_model_images_are_refused_and_vectors_are_not() {
    let server = Running::with(Options::default(), None, false);
    let refused = server.ask("POST", "/search", &[("Content-Type", "image/png")], &picture(0, 0));
    assert!(refused.refused(501).contains("--run"));
    assert_eq!(
        server.search(&json!({"vector": [1.0, 0.0, 0.0], "k": 1})).ids().len(),
        1
    );
}

#[test]
fn items_neighbours_and_pictures() {
    let server = Running::with(Options::default(), None, true);
    let item = server.get("/items/red/2.png").json();
    assert_eq!(
        (item["class"].as_str(), item["payload"]["light"].as_f64()),
        (Some("red"), Some(8.0))
    );
    assert!(server.get("/items/red/99.png").refused(404).contains("red/99.png"));
    let near = server.get("/neighbours/red/2.png?k=4").ids();
    assert!(near.len() == 4 && !near.contains(&"red/2.png".to_owned()) && near.iter().all(|id| id.starts_with("red/")));
    assert_ne!(near, server.get("/neighbours/red/2.png?k=4&index=1").ids());
    assert!(
        server
            .get("/neighbours/red/2.png?index=2")
            .refused(400)
            .contains("2 indexes")
    );
    let whole = server.get("/images/red/2.png");
    assert_eq!((whole.status, whole.body), (200, picture(0, 2)));
    assert!(whole.head.contains("image/png"));
    for _ in 0..2 {
        let small = server.get("/thumbnails/red/2.png");
        assert_eq!(small.status, 200);
        assert_eq!(image::load_from_memory(&small.body).unwrap().width(), 24);
    }
    assert!(server.get("/thumbnails/none").refused(404).contains("none"));
}

#[test]
fn status_metrics_and_documents() {
    let server = Running::new(Options::default());
    assert_eq!(server.get("/health").json()["status"], "alive");
    let ready = server.get("/ready").json();
    assert_eq!(
        (ready["items"].as_u64(), ready["dimension"].as_u64()),
        (Some(3 * MEMBERS as u64), Some(3))
    );
    let document = server.get("/openapi.json").json();
    for path in [
        "/search",
        "/items/{id}",
        "/images/{path}",
        "/health",
        "/ready",
        "/metrics",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    server.search(&json!({"vector": [1.0, 0.0, 0.0]}));
    server.search(&json!({"vector": [1.0]}));
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    for line in [
        "gradus_requests_total{route=\"/search\",status=\"200\"} 1",
        "gradus_requests_total{route=\"/search\",status=\"400\"} 1",
        "gradus_search_seconds_count 2",
        "gradus_items 24",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let page = server.get("/");
    assert!(page.status == 200 && page.head.contains("content-security-policy"));
    let text = String::from_utf8(page.body).unwrap();
    assert!(
        !text.contains("http://") && !text.contains("https://"),
        "the page must not need another server"
    );
    for name in ["main.js", "map.js", "style.css"] {
        assert_eq!(server.get(&format!("/assets/{name}")).status, 200);
    }
    assert!(server.get("/assets/other.js").refused(404).contains("other.js"));
    assert!(server.get("/nothing").refused(404).contains("openapi"));
    assert!(server.get("/search").refused(405).contains("method"));
}

#[test]
fn the_map_has_every_item_and_its_neighbourhood() {
    let server = Running::with(Options::default(), None, true);
    let data = loop {
        let answer = server.get("/explorer/data");
        if answer.status == 200 && answer.json()["complete"] == true {
            break answer.json();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    for index in data["indexes"].as_array().unwrap() {
        let count = 3 * MEMBERS;
        assert_eq!(index["ids"].as_array().unwrap().len(), count);
        for map in ["neighbours", "principal components"] {
            assert_eq!(index["maps"][map].as_array().unwrap().len(), 2 * count, "{map}");
        }
        assert_eq!(index["factors"]["light"].as_array().unwrap().len(), count);
    }
    let misses = data["indexes"][0]["miss"].as_array().unwrap();
    assert!(misses.iter().all(|miss| miss == false));
}

#[test]
fn a_token_is_needed_where_there_is_one() {
    let server = Running::new(Options {
        token: Some("let me in".into()),
        ..Options::default()
    });
    for path in [
        "/items/red/2.png",
        "/explorer/data",
        "/metrics",
        "/images/red/2.png",
        "/thumbnails/red/2.png",
    ] {
        assert!(server.get(path).refused(401).contains("token"), "{path}");
    }
    for wrong in [
        "Bearer let me i",
        "Bearer let me in!",
        "Bearer ",
        "Basic let me in",
        "let me in",
    ] {
        assert_eq!(
            server
                .ask("GET", "/items/red/2.png", &[("Authorization", wrong)], &[])
                .status,
            401,
            "{wrong}"
        );
    }
    assert_eq!(server.search(&json!({"vector": [1.0, 0.0, 0.0]})).status, 401);
    let allowed = [("Authorization", "Bearer let me in")];
    assert_eq!(server.ask("GET", "/items/red/2.png", &allowed, &[]).status, 200);
    // The page signs in once; its pictures then come with the cookie.
    assert_eq!(
        server
            .ask("POST", "/sign-in", &[("Authorization", "Bearer no")], &[])
            .status,
        401
    );
    let signed = server.ask("POST", "/sign-in", &allowed, &[]);
    assert_eq!(signed.status, 204);
    let line = signed.head.lines().find(|line| line.starts_with("set-cookie")).unwrap();
    assert!(line.contains("HttpOnly") && line.contains("SameSite=Strict"));
    let cookie = line.split(": ").nth(1).unwrap().split(';').next().unwrap();
    assert_eq!(
        server.ask("GET", "/items/red/2.png", &[("Cookie", cookie)], &[]).status,
        200
    );
    assert_eq!(
        server
            .ask("GET", "/items/red/2.png", &[("Cookie", "gradus-token=00")], &[])
            .status,
        401
    );
    for open in ["/health", "/ready", "/openapi.json", "/"] {
        assert_eq!(server.get(open).status, 200, "{open}");
    }
}

#[test]
fn a_search_that_was_begun_is_answered_before_the_end() {
    let mut server = Running::new(Options::default());
    let body = picture(0, 1);
    let mut stream = server.connect();
    let head = format!(
        "POST /search?k=1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body[..20]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    server.stop();
    std::thread::sleep(Duration::from_millis(400));
    stream.write_all(&body[20..]).unwrap();
    assert_eq!(Answer::read(&mut stream).ids(), ["red/1.png"]);
    server.join();
    assert!(std::net::TcpStream::connect(server.address).is_err());
}
