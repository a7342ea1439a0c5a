//! The page for people on the metrics port: its HTML, and what a browser makes of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arrpc::{Client, Context, Handler, Response, Router, RpcError, Server, Value, blocking, value};

use crate::loopback::{HOST, start};
use crate::metrics::alone;
use crate::peers::{self, INSTALL_LIMIT, RUN_LIMIT};
use crate::raw::Raw;

/// For a browser on a busy machine.
const BROWSER_LIMIT: Duration = Duration::from_secs(400);

/// The head and the body of a response.
fn ask(addr: SocketAddr, method: &str, path: &str) -> (String, String) {
    let mut peer = Raw::connect(addr);
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    peer.send(request.as_bytes());
    let response = String::from_utf8(peer.rest().0).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn the_page_shows_the_values_of_the_moment_without_scripts() {
    alone("page::the_page_shows_the_values_of_the_moment_without_scripts", || {
        fn shown_on_the_page(message: Value) -> Value {
            message
        }
        let server = Server::new(HOST, 0, shown_on_the_page).metrics_host(HOST).metrics_port(0);
        let server = start(server);
        let client = blocking::Client::new(HOST, server.local_addr().port());
        for _ in 0..7 {
            client.send("hello").unwrap();
        }
        let (_, page) = ask(server.metrics_addr().unwrap(), "GET", "/");
        let rows: Vec<_> = page.lines().filter(|line| line.contains("shown_on_the_page")).collect();
        let row = |end: &str| {
            let found =
                rows.iter().any(|row| row.starts_with("<tr><td><code>") && row.ends_with(end));
            assert!(found, "{end}: {rows:#?}");
        };
        row("</bdi></td><td>1</td></tr>"); // the open connection
        row("<td>sum 42, count 7</td></tr>"); // the bytes
        assert!(rows.iter().any(|row| row.contains("<td>p50 ≤ ")), "{rows:#?}");
    });
}

#[test]
fn no_label_is_html() {
    alone("page::no_label_is_html", || {
        struct Hostile;
        impl Handler for Hostile {
            fn call(&self, message: Value, _: &Context) -> Response {
                let text = message.as_str().unwrap_or_default().to_owned();
                Response::ready(Err::<(), _>(RpcError::from(text)))
            }
            fn name(&self) -> &str {
                "<h6>\"{{script}}'&amp;"
            }
        }
        let server =
            start(Server::with_handler(HOST, 0, Hostile).metrics_host(HOST).metrics_port(0));
        let client = blocking::Client::new(HOST, server.local_addr().port());
        client.send("</td><script>alert(1)</script>{{style}}").unwrap_err();

        let (_, page) = ask(server.metrics_addr().unwrap(), "GET", "/");
        assert!(
            page.contains("&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;{{style}}"),
            "{page}"
        );
        assert!(page.contains("&lt;h6&gt;&quot;{{script}}&#39;&amp;amp;"), "{page}");
        assert!(!page.contains("<h6>"), "{page}");
        assert_eq!(page.matches("<script").count(), 1, "{page}");
    });
}

#[test]
fn the_page_may_do_nothing_but_what_is_in_it() {
    let server = start(Server::new(HOST, 0, |_| 1).metrics_host(HOST).metrics_port(0));
    let (head, page) = ask(server.metrics_addr().unwrap(), "GET", "/");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for expected in [
        "\r\ncontent-type: text/html; charset=utf-8\r\n",
        "\r\nx-content-type-options: nosniff\r\n",
        "\r\nreferrer-policy: no-referrer\r\n",
        "\r\ncontent-security-policy: default-src 'none'; style-src 'sha256-",
        "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
    ] {
        assert!(head.contains(expected), "{expected}: {head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    for outside in ["http://", "https://", " style=", " on", "src="] {
        let html = page.split("<style>").next().unwrap().to_owned()
            + page.rsplit_once("</style>").unwrap().1.split("<script>").next().unwrap();
        let tags = html.split('<').filter_map(|part| part.split('>').next());
        for tag in tags {
            assert!(!tag.contains(outside), "{outside}: <{tag}>");
        }
    }
    let hostname = arrpc::metrics::render();
    let hostname = hostname.split("hostname=\"").nth(1).unwrap().split('"').next().unwrap();
    let port = server.metrics_addr().unwrap().port();
    assert!(page.contains(&format!("<title>{hostname}:{port} · arrpc</title>")), "{page}");

    let (head_only, body) = ask(server.metrics_addr().unwrap(), "HEAD", "/");
    assert!(head_only.contains("\r\ncontent-security-policy: "), "{head_only}");
    assert_eq!(body, "");
}

#[test]
fn other_paths_are_not_found_and_told_which_there_are() {
    let server = start(Server::new(HOST, 0, |_| 1).metrics_host(HOST).metrics_port(0));
    for path in ["/index.html", "/page", "/script.js", "//", "/favicon.ico"] {
        let (head, body) = ask(server.metrics_addr().unwrap(), "GET", path);
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{path}: {head}");
        assert_eq!(body, "not found; there are /, /metrics, /healthz and /readyz\n");
    }
    let (head, _) = ask(server.metrics_addr().unwrap(), "POST", "/");
    assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{head}");
}

#[test]
#[ignore = "needs chromium, Node 18 or newer, npm and network access: cargo test -- --ignored"]
fn a_browser_shows_charts_on_wide_and_narrow_screens_in_light_and_dark() {
    let load = Load::start();
    let directory = target().join("page");
    let mut node = Command::new("node");
    node.current_dir(browser_environment()).arg("page.mjs");
    node.arg(format!("http://{}/", load.metrics)).arg(&directory);
    match peers::output(node, "", BROWSER_LIMIT) {
        Ok(printed) => assert_eq!(printed, "as it should be\n"),
        Err(error) => panic!("{error}\nscreenshots: {}", directory.display()),
    }
}

/// Two servers of this process that are called until this is dropped.
struct Load {
    metrics: SocketAddr,
    is_over: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start() -> Self {
        let router = Router::new()
            .method("shop.find", ["name"], |name: String| name)
            .method("shop.buy", ["name"], async |name: String| {
                smol::Timer::after(Duration::from_millis(name.len() as u64)).await;
                (!name.len().is_multiple_of(5)).then_some(name).ok_or("sold out")
            })
            .method("shop.prices", [], || vec![1u8, 2, 3])
            .method("admin.restart", [], || Err::<(), _>("not today"));
        let router = Server::with_handler(HOST, 0, router).metrics_host(HOST).metrics_port(0);
        let router = start(router.max_message_bytes(4_096));
        let metrics = router.metrics_addr().unwrap();
        let echo = Server::new(HOST, 0, |message| message);
        let echo = start(echo.metrics_host(HOST).metrics_port(metrics.port()));

        let is_over = Arc::new(AtomicBool::new(false));
        let callers = (0..3).map(|caller| {
            let is_over = is_over.clone();
            let client = |port| {
                let client = Client::new(HOST, port);
                blocking::Client::from(client.metrics_host(HOST).metrics_port(metrics.port()))
            };
            let (shop, echo) =
                (client(router.local_addr().port()), client(echo.local_addr().port()));
            thread::spawn(move || {
                for round in caller.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    // Errors are what some of these are for.
                    let _ = shop.call::<Value>("shop.buy", ("x".repeat(round % 40),));
                    let _ = shop.call::<Value>("shop.find", ("y".repeat(round % 300),));
                    let _ = shop.call::<Value>("shop.prices", ());
                    let _ = echo.send(value!({"foo": "bar"}));
                    if round.is_multiple_of(16) {
                        let _ = shop.call::<Value>("admin.restart", ());
                        let _ = shop.call::<Value>("no_such_method", ());
                        let _ = shop.send("z".repeat(5_000));
                    }
                }
            })
        });
        Self { metrics, callers: callers.collect(), is_over }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.callers.drain(..).for_each(|caller| _ = caller.join());
    }
}

/// A directory with `page.mjs` and what drives the browser, made on first use.
///
/// # Panics
/// There is no Node, or the package cannot be installed.
#[track_caller]
fn browser_environment() -> PathBuf {
    let files = ["package.json", "package-lock.json", "page.mjs"].map(|name| {
        let path = Path::new(peers::SCRIPTS).join("browser").join(name);
        (name, fs::read_to_string(path).unwrap())
    });
    let stamp: String = files.iter().map(|(_, text)| text.as_str()).collect();
    let made = peers::environment("browser", &stamp, |directory| {
        for (name, text) in &files {
            fs::write(directory.join(name), text).unwrap();
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(directory);
        peers::output(npm, "", INSTALL_LIMIT)?;
        let mut chromium = Command::new("chromium");
        chromium.arg("--version");
        peers::output(chromium, "", RUN_LIMIT).map(drop)
    });
    made.unwrap_or_else(|error| {
        panic!(
            "No browser to look at the page with. It needs `chromium`, `node` (18 or newer) and \
             `npm`, and network access to the npm registry for the first run.\n{error}"
        )
    })
}

fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}
