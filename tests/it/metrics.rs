//! Our metrics are those of the Python package: the same series, labels and counts for the same
//! calls. And what probes and promtool get.

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use arrpc::{Client, Error, RpcError, Server, Value, blocking};
use async_channel::unbounded;

use crate::loopback::{HOST, ReservedPort, cert, start};
use crate::peers::{self, RUN_LIMIT};
use crate::python;
use crate::raw::{PATIENCE, Raw};

#[test]
fn every_series_of_python_is_ours_with_the_same_labels_and_counts() {
    alone("metrics::every_series_of_python_is_ours_with_the_same_labels_and_counts", || {
        let (ports, ours) = make_calls();
        let certs = [cert("server.crt"), cert("server.key"), cert("ca.crt")];
        let python = python::run("shared_metrics.py", &certs.each_ref().map(String::as_str));
        let (python_ports, python) = python.split_once('\n').unwrap();

        let described = |text| lines(text).filter(|line| line.starts_with('#'));
        for line in described(python) {
            assert!(described(&ours).any(|found| found == line), "{line:?} is not in\n{ours}");
        }

        let python_ports: Vec<&str> = python_ports.split(' ').collect();
        let python = series(python, &python_ports);
        assert_eq!(python.len(), 27, "{python:#?}");
        let mut ours = series(&ours, &ports.each_ref().map(String::as_str));
        ours.retain(|series, _| python.keys().any(|known| name(known) == name(series)));
        for (series, value) in &python {
            assert_eq!(ours.remove(series), Some(*value), "{series}");
        }
        assert_eq!(ours, BTreeMap::new(), "Python has none of these");
    });
}

/// The lines of arrpc's metrics, without the times of creation that Python adds.
fn lines(exposition: &str) -> impl Iterator<Item = &str> {
    let of_arrpc = exposition.lines().filter(|line| line.contains("arrpc_"));
    of_arrpc.filter(|line| !line.contains("_created"))
}

/// The series that have counted something, by name and labels, with names for the ports. What takes
/// time has taken "1".
fn series(exposition: &str, ports: &[&str]) -> BTreeMap<String, f64> {
    let counted = lines(exposition).filter(|line| !line.starts_with('#')).map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let mut series = series.to_owned();
        for (port, name) in ports.iter().zip(["PLAIN", "SECURE", "CLOSED"]) {
            series = series.replace(&format!("{HOST}:{port}"), &format!("{HOST}:{name}"));
        }
        let value: f64 = value.parse().unwrap();
        let is_time = name(&series).ends_with("_seconds_sum");
        (series, if is_time && value > 0.0 { 1.0 } else { value })
    });
    counted.filter(|(_, value)| *value != 0.0).collect()
}

fn name(series: &str) -> &str {
    series.split('{').next().unwrap()
}

/// The handler of `shared_metrics.py`.
async fn handler(message: Value) -> Result<Value, RpcError> {
    match message.as_str() {
        Some("fail") => Err(RpcError::new("Something went wrong")),
        Some("wait") => std::future::pending().await,
        _ => Ok(message),
    }
}

/// Makes the calls of `shared_metrics.py`; returns the ports that it prints, and the exposition.
fn make_calls() -> ([String; 3], String) {
    let server = || Server::new(HOST, 0, handler).metrics_host(HOST);
    let plain = start(server().metrics_port(0));
    let metrics = plain.metrics_addr().unwrap();
    let secure = server().metrics_port(metrics.port()).auth_secret("secret");
    let secure = start(secure.tls(cert("server.crt"), cert("server.key")));
    assert_eq!(secure.metrics_addr(), Some(metrics), "the process has one endpoint");
    let reserved = ReservedPort::new();
    let [plain, secure, closed] = [plain.local_addr(), secure.local_addr(), reserved.addr()];

    for (addr, secret, timeout, message, expected) in [
        (plain, None, None, "hello", "ok"),
        (plain, None, None, "fail", "RpcException"),
        (plain, None, Some(200), "wait", "RpcTimeoutException"),
        (secure, Some("secret"), None, "hello", "ok"),
        (secure, Some("secret"), None, "hello", "ok"),
        (secure, Some("Secret"), None, "hello", "AuthException"),
        (secure, None, None, "hello", "AuthException"),
        (closed, None, None, "hello", "ConnectException"),
    ] {
        let mut client = Client::new(HOST, addr.port()).con_max_retries(1);
        client = client.metrics_host(HOST).metrics_port(metrics.port());
        if addr == secure {
            client = client.tls_cafile(cert("ca.crt"));
        }
        if let Some(secret) = secret {
            client = client.auth_secret(secret);
        }
        if let Some(timeout) = timeout {
            client = client.timeout(Duration::from_millis(timeout));
        }
        let outcome = match blocking::Client::from(client).send(message) {
            Ok(_) => "ok",
            Err(Error::Auth(_)) => "AuthException",
            Err(Error::Connect { .. }) => "ConnectException",
            Err(Error::Rpc(_)) => "RpcException",
            Err(Error::Timeout { .. }) => "RpcTimeoutException",
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(outcome, expected, "{message} to {addr}");
    }
    let ports = [plain, secure, closed].map(|addr| addr.port().to_string());
    (ports, get(metrics, "/metrics").1)
}

/// The status and the body of a page.
fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut peer = Raw::connect(addr);
    peer.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
    let response = String::from_utf8(peer.rest().0).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn our_client_and_a_python_server_count_the_same_requests_and_bytes() {
    let server = python::Server::start(&["--metrics", "0", "--secret", "secret"]);
    let client = blocking::Client::new(HOST, server.addr.port()).auth_secret("secret");
    let client = client.metrics_host(HOST).metrics_port(0);
    for length in 1..=50 {
        client.send("x".repeat(100 * length)).unwrap();
    }
    let totals = |exposition: &str, side: &str, peer: &str| {
        let label = format!("remote_address=\"{peer}\"");
        ["count", "sum"].map(|part| {
            let name = format!("arrpc_{side}_req_bytes_{part}{{");
            let mut lines = lines(exposition).filter(|line| line.starts_with(&name));
            let line = lines.find(|line| line.contains(&label)).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        })
    };
    let python = get(server.metrics_addr.unwrap(), "/metrics").1;
    let ours = arrpc::metrics::render();
    let ours = totals(&ours, "client", &server.addr.to_string());
    assert_eq!(ours, totals(&python, "server", HOST));
    assert_eq!(ours[0], 50.0);
}

#[test]
fn what_a_peer_sends_makes_no_labels() {
    fn only_this_test_has_it(number: u8) -> Result<u8, RpcError> {
        Ok(number)
    }
    let server = Server::new(HOST, 0, arrpc::typed(only_this_test_has_it));
    let server = start(server.metrics_host(HOST).metrics_port(0));
    for number in 0..200 {
        let client = blocking::Client::new(HOST, server.local_addr().port());
        let error = client.send(format!("hunter{number}")).unwrap_err();
        assert!(matches!(error, Error::Rpc(_)), "{error:?}");
        let mut peer = Raw::connect(server.local_addr());
        peer.send(&[vec![0xdc, 0xff, 0xff], vec![0; number], vec![0xc1]].concat());
        peer.rest();
    }
    let metrics = get(server.metrics_addr().unwrap(), "/metrics").1;
    let ours = lines(&metrics).filter(|line| line.contains("only_this_test_has_it"));
    let errors: Vec<_> = ours.filter(|line| line.starts_with("arrpc_server_errors")).collect();
    for reason in ["Message does not have the form of the handler's type", "byte 0xc1"] {
        let counted = |line: &&&str| line.contains(reason) && line.ends_with(" 200");
        assert_eq!(errors.iter().filter(counted).count(), 1, "{reason}: {errors:#?}");
    }
    assert_eq!(errors.len(), 2, "{errors:#?}");
}

#[test]
fn probes_are_told_when_the_server_is_ready_and_when_it_stops() {
    alone("metrics::probes_are_told_when_the_server_is_ready_and_when_it_stops", || {
        let (started_sender, started) = unbounded();
        let (gate, wait) = unbounded();
        let server = Server::new(HOST, 0, move |_| {
            let (started, wait) = (started_sender.clone(), wait.clone());
            async move {
                started.send(()).await.unwrap();
                wait.recv().await.unwrap()
            }
        });
        let server = start(server.metrics_host(HOST).metrics_port(0));
        let probes = server.metrics_addr().unwrap();
        let status = |path| get(probes, path).0;
        assert_eq!([status("/healthz"), status("/readyz")], [200, 200]);

        let mut busy = Raw::connect(server.local_addr());
        busy.send(b"\x01");
        started.recv_blocking().unwrap();
        server.stop();
        let deadline = Instant::now() + PATIENCE;
        while status("/readyz") != 503 {
            assert!(Instant::now() < deadline, "still ready");
        }
        assert_eq!(status("/healthz"), 200);

        gate.try_send(()).unwrap();
        busy.expect(b"\xc0");
        drop(busy);
        server.join();
        assert_eq!([status("/healthz"), status("/readyz")], [200, 200], "no server is not ready");
    });
}

#[test]
#[ignore = "needs promtool, in Debian's package prometheus: cargo test -- --ignored"]
fn promtool_accepts_the_exposition() {
    alone("metrics::promtool_accepts_the_exposition", || {
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]);
        let checked = peers::output(promtool, &make_calls().1, RUN_LIMIT);
        assert_eq!(checked, Ok(String::new()));
    });
}

/// Runs a test, by its path, in a process of its own: metrics and readiness belong to the process.
#[track_caller]
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    const ALONE: &str = "ARRPC_TEST_ALONE";
    if env::var_os(ALONE).is_some() {
        return test();
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--include-ignored"]).env(ALONE, "1");
    match peers::output(command, "", RUN_LIMIT) {
        Ok(printed) => assert!(printed.contains("test result: ok. 1 passed"), "{printed}"),
        Err(error) => panic!("{error}"),
    }
}
