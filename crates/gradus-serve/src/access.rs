//! Who may ask: a bearer token, or the cookie that the page got for it; and no other site by way of a browser.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::answer::Refusal;
use crate::shared::Shared;

const COOKIE: &str = "gradus-token";

/// Whether a request carries the token, if one is needed.
fn is_allowed(shared: &Shared, headers: &HeaderMap) -> bool {
    let Some(token) = &shared.options.token else {
        return true;
    };
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let cookie = headers.get_all(header::COOKIE).iter().find_map(|value| {
        value
            .to_str()
            .ok()?
            .split(';')
            .find_map(|part| part.trim().strip_prefix(COOKIE)?.strip_prefix('='))
            .map(unescaped)
    });
    let equal = |given: &[u8]| bool::from(given.ct_eq(token.as_bytes()));
    bearer.is_some_and(equal) || cookie.is_some_and(|value| equal(&value))
}

/// Refuses requests for data without the token.
pub(crate) async fn with_token(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if is_allowed(&shared, request.headers()) {
        return next.run(request).await;
    }
    let refusal = Refusal::new(
        StatusCode::UNAUTHORIZED,
        "this server needs a token: send the header \"Authorization: Bearer TOKEN\"",
    );
    let mut response = refusal.into_response();
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    response
}

/// Refuses names that a foreign page could have pointed at this machine, where only this machine is meant, and adds the headers that
/// keep a browser from running anything but the page itself.
pub(crate) async fn of_browsers(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    let mut response = if shared.only_this_machine && !host.is_none_or(is_this_machine) {
        Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this server answers to localhost and 127.0.0.1 only; start it with another --host to serve other machines",
        )
        .into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "::1"
}

/// Gives the page a cookie for the token it sent, because a browser asks for pictures without headers of the page.
pub(crate) async fn sign_in(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    if !is_allowed(&shared, &headers) {
        return Refusal::new(StatusCode::UNAUTHORIZED, "this is not the token of this server").into_response();
    }
    let token = shared.options.token.as_deref().unwrap_or_default();
    let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", escaped(token));
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response()
}

/// Hexadecimal: a cookie's value may hold no other characters of a token.
fn escaped(token: &str) -> String {
    token.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for name in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"] {
            assert!(is_this_machine(name), "{name}");
        }
        for name in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil",
            "10.0.0.1:8080",
            "",
        ] {
            assert!(!is_this_machine(name), "{name}");
        }
        assert_eq!(unescaped(&escaped("a;é\"")), "a;é\"".as_bytes());
        assert!(unescaped("zz").is_empty());
    }
}
