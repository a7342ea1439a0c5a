//! `arrpc call` and `arrpc methods` as a user at a shell sees them, with routers and with servers
//! that have none.

use arrpc::{Router, RpcError, Server, ServerHandle, Value, value};

use crate::command::{Ended, File, arrpc, run};
use crate::loopback::{self, HOST, cert, echo};
use crate::python;

fn router() -> Router {
    let math = Router::new()
        .method("plus", ["a", "b"], |a: i64, b: i64| a + b)
        .describe("plus", "Adds.\n\nMay overflow.")
        .method("divide", ["a", "b"], |a: f64, b: f64| match b {
            0.0 => Err(RpcError::with_code("division_by_zero", "b must not be 0")),
            _ => Ok(a / b),
        });
    Router::new()
        .service("math_service", math)
        .id(1, "math_service.plus")
        .method("greet", ["name"], |name: Option<String>| name.unwrap_or_else(|| "nobody".into()))
        .method("given", ["a"], |a: Value| a)
        .method("nested", [], || value!({"a": [1]}))
}

fn start(router: Router) -> (ServerHandle, String) {
    let server = loopback::start(Server::with_handler(HOST, 0, router));
    let addr = server.local_addr().to_string();
    (server, addr)
}

/// Answers only calls with the token `sesame`.
fn start_token_server() -> (ServerHandle, String) {
    let router = Router::new().method("secret", [], || "open").access(|call| match call.token() {
        Some("sesame") => Ok(()),
        _ => Err("this needs a token".into()),
    });
    start(router)
}

fn call(addr: &str, arguments: &[&str]) -> Ended {
    run(arrpc(&[&["call", addr], arguments].concat()), "")
}

fn methods(addr: &str, options: &[&str]) -> Ended {
    run(arrpc(&[&["methods", addr], options].concat()), "")
}

#[test]
fn a_method_is_called_with_parameters_by_position_or_by_name() {
    let (_server, addr) = start(router());
    for (arguments, result) in [
        (&["math_service.plus", "10", "20"] as &[_], "30"),
        (&["math_service.plus", "a=10", "b=20"], "30"),
        (&["math_service.plus", "b=20", "a=-10"], "10"),
        (&["1", "10", "20"], "30"),
        (&["math_service.plus", "-5", "3"], "-2"),
        (&["math_service.plus", "-5", "--timeout", "60", "-3"], "-8"),
        (&["math_service.divide", "-1.5", "-1e1"], "0.15"),
        (&["math_service.divide", "--", "-1e-1", "2"], "-0.05"),
        (&["math_service.plus", "--params", "[10, 20]"], "30"),
        (&["math_service.plus", "--params", r#"{"b": 20, "a": 10}"#], "30"),
        (&["greet"], r#""nobody""#),
        (&["greet", "--params", "[]"], r#""nobody""#),
        (&["greet", "bob"], r#""bob""#),
        (&["greet", "name=bob"], r#""bob""#),
        (&["greet", "--", "--timeout"], r#""--timeout""#),
    ] {
        assert_eq!(call(&addr, arguments), Ended::ok(&format!("{result}\n")), "{arguments:?}");
    }
    let pretty = call(&addr, &["nested", "--pretty"]);
    assert_eq!(pretty, Ended::ok("{\n  \"a\": [\n    1\n  ]\n}\n"));
}

#[test]
fn a_parameter_is_json_or_else_a_string() {
    let (_server, addr) = start(router());
    for (param, given) in [
        ("10", "10"),
        ("1.0", "1.0"),
        ("null", "null"),
        (r#"{"$bin": "AAE="}"#, r#"{"$bin":"AAE="}"#),
        (r#"{"a":[true]}"#, r#"{"a":[true]}"#),
        (r#""10""#, r#""10""#),
        (r#""a=b""#, r#""a=b""#),
        ("", r#""""#),
        ("bob and eve", r#""bob and eve""#),
        ("007", r#""007""#),
        ("a=10", "10"),
        ("a=a=10", r#""a=10""#),
        ("a=", r#""""#),
        (r#"a="10""#, r#""10""#),
        ("a b=10", r#""a b=10""#),
        ("a.b=10", r#""a.b=10""#),
        ("1=2", r#""1=2""#),
        ("=10", r#""=10""#),
        (r#"{"a": "b=c"}"#, r#"{"a":"b=c"}"#),
    ] {
        let expected = Ended::ok(&format!("{given}\n"));
        assert_eq!(call(&addr, &["given", param]), expected, "{param}");
    }
}

#[test]
fn calls_that_cannot_be_meant_are_exit_code_2() {
    for (arguments, texts) in [
        (&[] as &[_], &["<METHOD>"] as &[_]),
        (&[""], &["write the name of a method, or its number"]),
        (&["65536"], &["a number is 65535 at most"]),
        (&["plus", "--unknown"], &["--unknown", "use '-- --unknown'"]),
        (&["plus", "a=10", "20"], &[r#"the parameter "20" has no name, unlike a"#, r#"'"a=b"'"#]),
        (&["plus", "10", "b=20"], &[r#"the parameter "10" has no name, unlike b"#]),
        (&["plus", "a=10", "a=20"], &["the parameter a is given twice"]),
        (&["plus", "10", "--params", "[10]"], &["cannot be used with '--params <JSON>'"]),
        (&["plus", "--params", "10"], &["write an array, such as '[10, 20]', or an object"]),
        (&["plus", "--params", "[10"], &["'--params <JSON>'", "line 1, column 3"]),
        (&["plus", "--token", "a", "--token-file", "b"], &["cannot be used with"]),
        (&["plus", "--token", ""], &["the token in --token is empty"]),
        (&["plus", "--token-file", "certs/none"], &["cannot read the token in certs/none"]),
    ] {
        call("127.0.0.1:1", arguments).check(2, texts);
    }
    let mut empty = arrpc(&["methods", "127.0.0.1:1"]);
    empty.env("ARRPC_TOKEN", "");
    run(empty, "").check(2, &["the token in ARRPC_TOKEN is empty"]);
}

#[test]
fn an_error_of_a_call_has_its_code_and_what_to_do() {
    let (_server, addr) = start(router());
    for (arguments, texts) in [
        (
            &["math_service.divide", "1", "0"] as &[_],
            &["arrpc: [division_by_zero] b must not be 0\n"] as &[_],
        ),
        (
            &["math_service.plus", "ten", "20"],
            &["arrpc: [invalid_params] math_service.plus(a: i64, b: i64): parameter a: expected"],
        ),
        (
            &["math_service.pluss", "10", "20"],
            &["[unknown_method]", r#"is it "math_service.plus"?"#, "hint: `arrpc methods` lists"],
        ),
        (&["9"], &["[unknown_method] there is no method with the number 9"]),
        (
            &["math_service.plus", r#"{"a": tru}"#, "1"],
            &[
                "[invalid_params]",
                r#"hint: {"a": tru} was sent as a string, as it is no JSON: line"#,
            ],
        ),
        (
            &["greet", "aGVsbG8="],
            &["[invalid_params]", r#"hint: aGVsbG8 was taken for a name;"#, r#"'"aGVsbG8="'"#],
        ),
    ] {
        call(&addr, arguments).check(6, texts);
    }
    let wrong_type = call(&addr, &["math_service.plus", "a=ten", "b=20"]);
    assert!(!wrong_type.stderr.contains("hint"), "{wrong_type:?}");
    call("127.0.0.1:1", &["plus", "--con-max-retries", "1"]).check(3, &["is the server running?"]);
}

#[test]
fn the_methods_are_listed_with_numbers_and_documentation() {
    let (_server, addr) = start(router());
    let text = "given(a: Value) -> Value\n\
                greet(name: Option<String>) -> String\n\
                math_service.divide(a: f64, b: f64) -> f64\n\
                math_service.plus(a: i64, b: i64) -> i64  (id 1)\n    Adds.\n\n    May overflow.\n\
                nested() -> Value\n";
    assert_eq!(methods(&addr, &[]), Ended::ok(text));

    let (_server, addr) = start(Router::new().method("plus", ["a"], |a: i64| a).id(7, "plus"));
    let json =
        r#"[{"name":"plus","id":7,"params":[{"name":"a","type":"i64"}],"result":"i64","doc":""}]"#;
    assert_eq!(methods(&addr, &["--json"]), Ended::ok(&format!("{json}\n")));

    let (_server, addr) = start(Router::new());
    assert_eq!(methods(&addr, &["--json"]), Ended::ok("[]\n"));
    let nothing = "arrpc: the server has a router without methods\n".to_owned();
    assert_eq!(methods(&addr, &[]), Ended { stderr: nothing, ..Ended::ok("") });
}

#[test]
fn a_router_in_another_language_may_tell_less_and_in_any_order() {
    let list = value!([{"name": "b", "params": [{"name": "x"}, 5], "more": 1}, {"name": "a"}]);
    let server = loopback::start(Server::new(HOST, 0, move |_| list.clone()));
    let addr = server.local_addr().to_string();
    assert_eq!(methods(&addr, &[]), Ended::ok("a()\nb(x, ?)\n"));
    let json = r#"[{"name":"a"},{"name":"b","params":[{"name":"x"},5],"more":1}]"#;
    assert_eq!(methods(&addr, &["--json"]), Ended::ok(&format!("{json}\n")));
}

#[test]
fn a_server_that_lists_no_methods_is_told_from_one_that_has_none() {
    let (_server, addr) = start(router().without_listing());
    methods(&addr, &[]).check(6, &["[unknown_method]", "hint: the server does not list"]);

    let plain = loopback::start(Server::new(HOST, 0, |_| Err::<(), _>("what is this?")));
    let addr = plain.local_addr().to_string();
    methods(&addr, &[]).check(6, &["arrpc: what is this?\n", "hint: only a server with a Router"]);

    for answer in [value!("got it"), value!([1]), value!([{"name": 1}]), value!({})] {
        let plain = loopback::start(Server::new(HOST, 0, move |_| answer.clone()));
        let addr = plain.local_addr().to_string();
        let text = "the server has no list of methods, it answered arrpc.methods with ";
        methods(&addr, &[]).check(7, &[text, "hint: only a server with a Router has methods"]);
        methods(&addr, &["--json"]).check(7, &[text]);
    }
    let long = loopback::start(Server::new(HOST, 0, |_| "é".repeat(1000)));
    let told = methods(&long.local_addr().to_string(), &[]);
    told.check(7, &["éé...\n"]);
    assert!(told.stderr.len() < 500, "{told:?}");
}

#[test]
fn the_token_comes_from_an_option_a_file_or_the_environment() {
    let (_server, addr) = start_token_server();
    let opened = Ended::ok("\"open\"\n");
    let (unix, windows) = (File::new("token", "sesame\n"), File::new("token crlf", "sesame\r\n"));
    for options in
        [["--token", "sesame"], ["--token-file", unix.path()], ["--token-file", windows.path()]]
    {
        assert_eq!(call(&addr, &["secret", options[0], options[1]]), opened, "{options:?}");
        assert_eq!(methods(&addr, &options), Ended::ok("secret() -> &str\n"), "{options:?}");
    }
    let mut with_variable = arrpc(&["call", &addr, "secret"]);
    with_variable.env("ARRPC_TOKEN", "sesame");
    assert_eq!(run(with_variable, ""), opened);

    let refused = "[access_denied] this needs a token";
    let hint = "hint: the server may want a token: give --token-file or ARRPC_TOKEN\n";
    call(&addr, &["secret"]).check(6, &[refused, hint]);
    methods(&addr, &[]).check(6, &[refused, hint]);
    methods(&addr, &["--token", "x"]).check(6, &[refused, "hint: the server refuses this token"]);
    let mut overridden = arrpc(&["call", &addr, "secret", "--token", "other"]);
    overridden.env("ARRPC_TOKEN", "sesame");
    run(overridden, "").check(6, &[refused]);
}

#[test]
fn the_token_is_never_printed() {
    const TOKEN: &str = "kqxwvzjy";
    let (_server, addr) = start_token_server();
    let mut printed = String::new();
    for arguments in [
        &["call", &addr, "secret"] as &[_],
        &["methods", &addr],
        &["call", "127.0.0.1:1", "secret", "--con-max-retries", "1"],
        &["call", "--help"],
    ] {
        let mut command = arrpc(arguments);
        command.env("ARRPC_TOKEN", TOKEN).env("RUST_LOG", "trace");
        let Ended { stdout, stderr, .. } = run(command, "");
        printed += &(stdout + &stderr);
    }
    assert!(printed.contains("DEBUG") && !printed.contains(TOKEN), "{printed}");
}

#[test]
fn a_server_has_no_way_to_the_terminal() {
    const EVIL: &str = "a\x1b[2J\u{9b}2J\u{7f}\r\n\x07b";
    let list = value!([{
        "name": EVIL, "params": [{"name": EVIL, "type": EVIL}], "result": EVIL, "doc": EVIL,
    }]);
    let listing = loopback::start(Server::new(HOST, 0, move |_| list.clone()));
    let text = loopback::start(Server::new(HOST, 0, |_| EVIL));
    let error = loopback::start(Server::new(HOST, 0, |_| Err::<(), _>(EVIL)));
    let mut printed = String::new();
    for server in [&listing, &text, &error] {
        let addr = server.local_addr().to_string();
        for ended in [
            methods(&addr, &[]),
            methods(&addr, &["--json"]),
            call(&addr, &["x"]),
            call(&addr, &["x", "--pretty"]),
            run(arrpc(&["send", &addr, "1"]), ""),
        ] {
            printed += &(ended.stdout + &ended.stderr);
        }
    }
    assert!(!printed.contains(|c: char| c.is_control() && c != '\n'), "{printed:?}");
    let word = r"a\u{1b}[2J\u{9b}2J\u{7f}\r\n\u{7}b";
    let first =
        format!("{word}({word}: {word}) -> {word}\n    a\\u{{1b}}[2J\\u{{9b}}2J\\u{{7f}}\n");
    assert!(printed.starts_with(&first), "{printed}");
    assert!(printed.contains(r#""a\u001b[2J\u009b2J\u007f\r\n\u0007b""#), "{printed}");

    // A line of its own could pass for one of ours, in the log too.
    let addr = error.local_addr().to_string();
    let sent = run(arrpc(&["send", &addr, "1"]), "");
    let stderr = format!("arrpc: {word}\n");
    assert_eq!(sent, Ended { code: 6, stderr, ..Ended::ok("") });
    let sent = run(arrpc(&["send", &addr, "1", "--debug"]), "").stderr;
    let failed = format!("call failed server={addr} error=\"{word}\"\n");
    assert!(sent.contains(&failed), "{sent}");
    assert!(!sent.contains(|c: char| c.is_control() && c != '\n'), "{sent:?}");
}

#[test]
fn the_options_of_send_are_those_of_calls() {
    let secret = File::new("call secret", "s3cr3t");
    let server = Server::with_handler(HOST, 0, router())
        .tls(cert("server.crt"), cert("server.key"))
        .auth_secret("s3cr3t");
    let server = loopback::start(server);
    let addr = server.local_addr().to_string();
    let options = ["--tls-ca", "certs/ca.crt", "--auth-secret-file", secret.path()];
    assert_eq!(
        call(&addr, &[&["greet", "bob"], &options as &[_]].concat()),
        Ended::ok("\"bob\"\n")
    );
    assert!(methods(&addr, &options).stdout.contains("greet(name: "));
    call(&addr, &["greet", "bob"]).check(7, &["speaks TLS"]);
    call(&addr, &["greet", "--tls-ca", "certs/ca.crt"]).check(4, &["--auth-secret-file"]);
    methods(&addr, &["--tls-ca", "certs/other-ca.crt"]).check(3, &["hint: a CA in"]);

    let silent = Router::new().method("wait", [], std::future::pending::<()>);
    let (_server, addr) = start(silent);
    call(&addr, &["wait", "--timeout", "1"]).check(5, &["waiting for the reply"]);
    let (_server, addr) = start(router());
    call(&addr, &["greet", "bob", "--max-message-bytes", "3"]).check(7, &["max_message_bytes"]);
}

#[cfg(unix)]
#[test]
fn calls_go_to_a_unix_socket_as_well() {
    let socket =
        format!("unix:{}/arrpc-call-{}", std::env::temp_dir().display(), std::process::id());
    let _server = loopback::start(Server::with_handler(&socket, 0, router()));
    assert_eq!(call(&socket, &["greet", "bob"]), Ended::ok("\"bob\"\n"));
    assert!(methods(&socket, &[]).stdout.contains("greet(name: "));
}

#[test]
fn a_python_server_answers_calls_as_its_handler_does() {
    let failing = python::Server::start(&["--handler", "fail"]);
    let addr = failing.addr.to_string();
    call(&addr, &["plus", "10", "20"]).check(6, &["arrpc: Something went wrong\n"]);
    methods(&addr, &[]).check(6, &["Something went wrong", "hint: only a server with a Router"]);

    let mirror = python::Server::start(&["--handler", "echo"]);
    let addr = mirror.addr.to_string();
    let sent = r#"{"method":"plus","params":{"a":10},"token":"t"}"#;
    let called = call(&addr, &["plus", "a=10", "--token", "t"]);
    assert_eq!(called, Ended::ok(&format!("{sent}\n")));
    let answer = r#"it answered arrpc.methods with {"method":"arrpc.methods"}"#;
    methods(&addr, &[]).check(7, &[answer, "hint: only a server with a Router"]);
}

#[test]
fn a_server_without_methods_is_called_as_well() {
    let server = loopback::start(echo());
    let addr = server.local_addr().to_string();
    assert_eq!(call(&addr, &["5"]), Ended::ok("{\"method\":5}\n"));
}

#[test]
fn the_help_has_examples() {
    for command in ["call", "methods", "gateway", "new"] {
        for option in ["-h", "--help"] {
            let help = run(arrpc(&[command, option]), "");
            let example = format!("\nExamples:\n  arrpc {command} ");
            assert!(help.stdout.contains(&example), "{}", help.stdout);
        }
    }
}
