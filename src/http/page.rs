//! The page for people who look at the address of calls with a browser: it says how to call.

use std::sync::LazyLock;

use crate::html::{escaped, source};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");

/// The `content-security-policy` of the page: it has a style, and does nothing.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; style-src {}; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        source(STYLE)
    )
});

/// Makes the page of a path, of a server with or without TLS.
pub(super) fn render(is_tls: bool, path: &str) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    let page = PAGE.replace("{style}", STYLE).replace("{scheme}", scheme);
    page.replace("{path}", &escaped(path)) // the last, lest something in it is filled in
}
