//! Encrypted messages: what goes over the wire, who is refused, and what somebody on the way can
//! do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrpc::{Client, Context, Error, RpcError, Server, ServerHandle, Value, blocking, value};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305};
use hkdf::Hkdf;
use rmpv::decode::read_value;
use sha2::Sha256;

use crate::loopback::{HOST, cert, echo, raw_server, start};
use crate::peers::{self, RUN_LIMIT};
use crate::python;
use crate::raw::{End, PATIENCE, Raw};
#[cfg(unix)]
use crate::unix::Place;

const NOT_ENCRYPTED: &str =
    "Message is not encrypted, set 'encrypt' and 'auth_secret' as on the server";
const NOT_OPENED: &str =
    "Message cannot be decrypted, make sure 'auth_secret' is that of the server";
const UNENCRYPTED: &str = " (this came unencrypted, anybody may have sent it)";

const REQUEST: &[u8] = b"arrpc encryption 1 request";
const REPLY: &[u8] = b"arrpc encryption 1 reply";
const NONCE: [u8; 24] = *b"012345678901234567890123";

fn serve(server: Server) -> ServerHandle {
    start(server.auth_secret("secret").encrypt())
}

fn client(address: SocketAddr) -> Client {
    Client::new(HOST, address.port()).timeout(PATIENCE).auth_secret("secret").encrypt()
}

fn send(client: &Client, message: impl Into<Value>) -> Result<Value, Error> {
    smol::block_on(client.send(message))
}

#[track_caller]
fn assert_auth(result: Result<Value, Error>, text: &str) {
    match result {
        Err(Error::Auth(found)) => assert!(found.contains(text), "{found:?} lacks {text:?}"),
        other => panic!("expected {text:?}: {other:?}"),
    }
}

fn key(secret: &str, label: &[u8]) -> XChaCha20Poly1305 {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(None, secret.as_bytes()).expand(label, &mut key).unwrap();
    XChaCha20Poly1305::new(&key.into())
}

/// An encrypted request, made by the documentation.
fn sealed(secret: &str, nonce: [u8; 24], body: &[u8]) -> Vec<u8> {
    let mut sealed = body.to_vec();
    let tag = key(secret, REQUEST)
        .encrypt_inout_detached(&nonce.into(), REQUEST, sealed.as_mut_slice().into())
        .unwrap();
    sealed.extend_from_slice(&tag);
    packed(&value!({"arrpc.nonce": nonce.to_vec(), "arrpc.sealed": sealed}))
}

/// What is in the reply to the request with this nonce.
fn opened(reply: &Value, request: [u8; 24]) -> Value {
    let bytes = |name: &str| reply[name].as_slice().expect("an encrypted reply").to_vec();
    let nonce: [u8; 24] = bytes("arrpc.nonce").try_into().unwrap();
    let mut body = bytes("arrpc.sealed");
    let tag: [u8; 16] = body.split_off(body.len() - 16).try_into().unwrap();
    key("secret", REPLY)
        .decrypt_inout_detached(
            &nonce.into(),
            &[REPLY, &request].concat(),
            body.as_mut_slice().into(),
            &Tag::from(tag),
        )
        .expect("for this request");
    read_value(&mut body.as_slice()).unwrap()
}

fn packed(value: &Value) -> Vec<u8> {
    let mut packed = Vec::new();
    rmpv::encode::write_value(&mut packed, value).unwrap();
    packed
}

#[test]
fn every_kind_of_server_and_client_speaks_encrypted() {
    let fails = |_| Err::<(), _>(RpcError::with_code("no", "not now"));
    let context = |_, context: Context| value!([context.is_signed(), context.is_encrypted()]);
    let large = Value::Binary(vec![7; 1_000_000]);
    let raw = || Server::raw(HOST, 0, |message, reply| reply.write_bytes(message.bytes()));
    let later = || {
        Server::new(HOST, 0, |message: Value| async {
            smol::future::yield_now().await;
            message
        })
    };
    for server in [echo(), raw(), later(), Server::new(HOST, 0, arrpc::blocking(|m| m))] {
        let server = serve(server);
        for client in [client(server.local_addr()), client(server.local_addr()).pipelined(8)] {
            for message in [Value::Nil, value!({"foo": "bar"}), value!([]), large.clone()] {
                assert_eq!(send(&client, message.clone()).unwrap(), message);
            }
        }
        let blocking = blocking::Client::new(HOST, server.local_addr().port());
        let blocking = blocking.auth_secret("secret").encrypt();
        assert_eq!(blocking.send(7).unwrap(), value!(7));
        assert_eq!(blocking.request::<_, Vec<u8>>(&[1, 2]).unwrap(), [1, 2]);
    }
    let server = serve(Server::new(HOST, 0, fails));
    match send(&client(server.local_addr()), 1) {
        Err(Error::Rpc(error)) => assert_eq!(error.code(), Some("no")),
        other => panic!("{other:?}"),
    }
    let server = serve(Server::raw(HOST, 0, |_, _| Err("raw".into())));
    assert!(matches!(send(&client(server.local_addr()), 1), Err(Error::Rpc(_))));
    let server = serve(Server::with_context(HOST, 0, context));
    assert_eq!(send(&client(server.local_addr()), 1).unwrap(), value!([true, true]));
    let signed = start(Server::with_context(HOST, 0, context).auth_secret("secret"));
    let signing = blocking::Client::new(HOST, signed.local_addr().port()).auth_secret("secret");
    assert_eq!(signing.send(1).unwrap(), value!([true, false]));
    let server = serve(echo().tls(cert("server.crt"), cert("server.key")));
    assert_eq!(
        send(&client(server.local_addr()).tls_cafile(cert("ca.crt")), 1).unwrap(),
        value!(1)
    );
}

#[cfg(unix)]
#[test]
fn a_unix_socket_carries_encrypted_messages() {
    let place = Place::new();
    let _server = serve(place.echo());
    let client = Client::new(place.host(), 0).auth_secret("secret").encrypt();
    assert_eq!(send(&client, 1).unwrap(), value!(1));
}

#[test]
fn many_calls_at_once_get_their_own_replies_in_whatever_order_handlers_end() {
    let server = serve(Server::new(HOST, 0, |message: Value| async move {
        for _ in 0..message.as_u64().unwrap_or_default() * 7 % 5 {
            smol::future::yield_now().await;
        }
        match message.as_u64() {
            Some(number) if number % 3 == 0 => Err(RpcError::new(number)),
            _ => Ok(message),
        }
    }));
    let client = client(server.local_addr()).pipelined(32).max_connections(2);
    let calls: Vec<_> = (0..500)
        .map(|number| {
            let client = client.clone();
            smol::spawn(async move { (number, client.send(number).await) })
        })
        .collect();
    for call in calls {
        match smol::block_on(call) {
            (number, Ok(reply)) => assert_eq!(reply, value!(number)),
            (number, Err(Error::Rpc(error))) => assert_eq!(error.message(), number.to_string()),
            (number, other) => panic!("{number}: {other:?}"),
        }
    }
}

#[test]
fn the_bytes_are_those_of_the_documentation() {
    let server = serve(Server::new(HOST, 0, |message| {
        assert_eq!(message, value!({"foo": "bar"}));
        "got it"
    }));
    let mut peer = Raw::connect(server.local_addr());
    let request = sealed("secret", NONCE, b"\x81\xa3foo\xa3bar");
    // Made with pycryptodome.
    assert_eq!(
        request,
        b"\x82\xabarrpc.nonce\xc4\x18012345678901234567890123\xacarrpc.sealed\xc4\x19\
          \x15\x33\xc6\xff\x7c\x7b\x1a\x85\x9b\x03\x8d\x44\xc9\x2c\x65\x04\xb0\x7d\x06\xd3\xe7\
          \xae\x25\x27\xaa"
    );
    let mut nonces = Vec::new();
    for _ in 0..3 {
        peer.send(&request);
        let mut reply = [0; 77];
        peer.0.read_exact(&mut reply).unwrap();
        let reply = read_value(&mut reply.as_slice()).unwrap();
        assert_eq!(opened(&reply, NONCE), value!("got it"));
        nonces.push(reply["arrpc.nonce"].as_slice().unwrap().to_vec());
    }
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 3, "the same request, and each time another nonce");
}

#[test]
fn what_does_not_open_is_refused_in_the_clear_and_the_third_in_a_row_ends_the_connection() {
    let server = serve(echo());
    let other = sealed("Secret", NONCE, b"\x07");
    let mut changed = sealed("secret", NONCE, b"\x07");
    *changed.last_mut().unwrap() ^= 1;
    let signed = packed(&value!({"arrpc.sign": "00".repeat(32), "data": vec![7u8]}));
    for (message, text) in [
        (b"\x07".to_vec(), NOT_ENCRYPTED),
        (signed, NOT_ENCRYPTED),
        (b"\xa1\xff".to_vec(), NOT_ENCRYPTED), // G7: nobody looks whether it is UTF-8
        (other, NOT_OPENED),
        (changed, NOT_OPENED),
    ] {
        let mut peer = Raw::connect(server.local_addr());
        let refusal = format!("arrpc.error.AuthException: {text}");
        for _ in 0..3 {
            peer.send(&message);
            peer.send(&message);
            peer.expect_text(&refusal);
            peer.expect_text(&refusal);
            peer.send(&sealed("secret", NONCE, b"\x07")); // the next is not in a row
            let reply = read_value(&mut peer.0).unwrap();
            assert_eq!(opened(&reply, NONCE), value!(7));
        }
        peer.send(&message.repeat(3));
        (0..3).for_each(|_| peer.expect_text(&refusal));
        peer.expect_end(End::Closed);
    }
}

#[test]
fn what_was_opened_is_checked_and_its_refusal_is_encrypted() {
    let server = serve(echo().max_items(10).max_depth(3));
    for (body, text) in [
        (b"\x91\x91\x91\x90".as_slice(), "nested deeper than 3"),
        (b"\xdc\x00\x0a", "more than 10 values"),
        (b"\x01\x02", "Not one message"),
        (b"\x92\x01", "Not one message"),
        (b"", "Not one message"),
        (b"\xc1", "Not MessagePack"),
        (b"\xa1\xff", "is not UTF-8"),
    ] {
        let mut peer = Raw::connect(server.local_addr());
        peer.send(&sealed("secret", NONCE, body));
        let reply = opened(&read_value(&mut peer.0).unwrap(), NONCE);
        assert!(reply.as_str().unwrap().contains(text), "{reply} lacks {text:?}");
    }
}

#[test]
fn each_mismatch_of_the_two_sides_says_what_to_do() {
    let to = |server: &ServerHandle| Client::new(HOST, server.local_addr().port());
    let text = |text: &str| format!("{text}{UNENCRYPTED}");
    let plain = start(echo());
    let signed = start(echo().auth_secret("secret"));
    let encrypted = serve(echo());
    let clients = |server| [to(server), to(server).pipelined(4)];
    for client in clients(&plain) {
        let told = "Message is encrypted but the server has no secret, unset 'encrypt' or set it \
                    and 'auth_secret' on the server";
        let client = client.auth_secret("secret").encrypt();
        (0..4).for_each(|_| assert_auth(send(&client, 1), &text(told)));
    }
    for client in clients(&signed) {
        let told = "Message is encrypted but the server takes signed ones, unset 'encrypt' or set \
                    it on the server";
        let client = client.auth_secret("secret").encrypt();
        (0..4).for_each(|_| assert_auth(send(&client, 1), &text(told)));
    }
    for client in clients(&encrypted) {
        assert_auth(send(&client, 1), NOT_ENCRYPTED);
        assert_auth(send(&client.clone().auth_secret("secret"), 1), NOT_ENCRYPTED);
        let client = client.auth_secret("other").encrypt();
        (0..4).for_each(|_| assert_auth(send(&client, 1), &text(NOT_OPENED)));
    }
    // One that knows nothing of all this has the envelope for a message, and sends it back.
    let python = python::Server::start(&[]);
    assert_auth(send(&client(python.addr), 1), "The reply cannot be decrypted");
}

#[test]
fn a_plain_error_to_an_encrypted_request_is_none_of_the_handler() {
    let server = serve(echo().max_message_bytes(1000));
    let text = "Message is longer than 1000 bytes (max_message_bytes)";
    let large = Value::Binary(vec![7; 2000]);
    let told = format!("{text}{UNENCRYPTED}");
    assert_auth(send(&client(server.local_addr()), large.clone()), &told);
    assert_auth(send(&client(server.local_addr()).pipelined(2), large), &told);
}

/// What somebody on the way makes of requests and their replies.
type Tamper = fn(&[Vec<u8>], Vec<Vec<u8>>) -> Vec<Vec<u8>>;

/// Something on the way: reads so many requests, then their replies, and passes on what it likes.
fn on_the_way(
    server: SocketAddr,
    count: usize,
    tamper: impl Fn(&[Vec<u8>], Vec<Vec<u8>>) -> Vec<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    let port = raw_server(move |_, mut client| {
        let mut server = TcpStream::connect(server).unwrap();
        let read = |stream: &mut TcpStream| read_value(stream).map(|value| packed(&value));
        let Ok(requests) = (0..count).map(|_| read(&mut client)).collect::<Result<Vec<_>, _>>()
        else {
            return;
        };
        server.write_all(&requests.concat()).unwrap();
        let replies = (0..count).map(|_| read(&mut server).unwrap()).collect();
        let _ = client.write_all(&tamper(&requests, replies).concat()); // it may have gone
    });
    (std::net::Ipv4Addr::LOCALHOST, port).into()
}

#[test]
fn a_reply_with_any_changed_byte_is_an_error_and_never_a_value() {
    let server = serve(echo());
    for depth in [1, 4] {
        let calls = Arc::new(AtomicUsize::new(0));
        let call = calls.clone();
        let proxy = on_the_way(server.local_addr(), 1, move |_, mut replies| {
            let call = call.load(Ordering::SeqCst);
            let at = call % replies[0].len();
            replies[0][at] ^= 1 << (call % 8);
            replies
        });
        let client = client(proxy).pipelined(depth);
        for call in 0..160 {
            calls.store(call, Ordering::SeqCst);
            match send(&client, "hello") {
                Err(Error::Auth(_) | Error::Protocol(_) | Error::Disconnected { .. }) => {}
                other => panic!("{call}: {other:?}"),
            }
        }
        // In the middle of what is encrypted, it is this and nothing else.
        calls.store(70, Ordering::SeqCst);
        assert_auth(send(&client, "hello"), "The reply cannot be decrypted");
    }
}

#[test]
fn a_reply_to_another_request_is_an_error() {
    let server = serve(echo());
    let proxy = on_the_way(server.local_addr(), 2, |_, mut replies| {
        replies.swap(0, 1);
        replies
    });
    let client = client(proxy).pipelined(2).max_connections(1);
    smol::block_on(async {
        let both = smol::future::zip(client.send("first"), client.send("second")).await;
        for result in [both.0, both.1] {
            assert_auth(result, "is not the one to this request");
        }
    });
}

#[test]
fn a_request_that_is_reflected_or_answered_by_somebody_else_is_an_error() {
    let server = serve(echo());
    let reflected = |requests: &[Vec<u8>], _| requests.to_vec();
    let plain = |_: &[Vec<u8>], _| vec![b"\xa6got it".to_vec()];
    let error = |_: &[Vec<u8>], _| vec![packed(&value!("arrpc.error.RpcException: [gone] no"))];
    let proxy = |tamper: Tamper| client(on_the_way(server.local_addr(), 1, tamper));
    assert_auth(send(&proxy(reflected), 1), "The reply cannot be decrypted");
    assert_auth(send(&proxy(plain), 1), "The reply is not encrypted");
    assert_auth(send(&proxy(error), 1), &format!("[gone] no{UNENCRYPTED}"));
}

#[test]
fn a_reply_that_was_kept_from_an_earlier_call_is_an_error() {
    let server = serve(echo());
    let kept = std::sync::Mutex::new(None);
    let proxy = on_the_way(server.local_addr(), 1, move |_, replies| {
        kept.lock().unwrap().get_or_insert(replies).clone()
    });
    // A client each: the one of the first call may not have seen yet that its connection ends.
    assert_eq!(send(&client(proxy), 1).unwrap(), value!(1));
    assert_auth(send(&client(proxy), 1), "The reply cannot be decrypted");
}

#[test]
fn each_attempt_of_an_idempotent_call_has_another_nonce() {
    let (sender, nonces) = async_channel::unbounded();
    let port = raw_server(move |_, mut stream| {
        if let Ok(request) = read_value(&mut stream) {
            sender.try_send(request["arrpc.nonce"].as_slice().unwrap().to_vec()).unwrap();
        }
    });
    let client = client((std::net::Ipv4Addr::LOCALHOST, port).into()).idempotent_retries(2);
    let lost = send(&client.idempotent(), 1);
    assert!(matches!(lost, Err(Error::Disconnected { .. })), "{lost:?}");
    let mut nonces: Vec<_> = std::iter::from_fn(|| nonces.try_recv().ok()).collect();
    assert_eq!(nonces.len(), 3);
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 3);
}

#[test]
fn a_timeout_of_the_handler_is_an_encrypted_error_too() {
    let server = Server::new(HOST, 0, |_| std::future::pending::<()>());
    let server = serve(server.handler_timeout(Duration::from_millis(20)));
    match send(&client(server.local_addr()), 1) {
        Err(Error::Rpc(error)) => assert!(error.message().contains("handler_timeout")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn encrypted_messages_count_as_signed_ones_in_the_metrics() {
    let server = serve(echo().metrics_host(HOST).metrics_port(0));
    send(&client(server.local_addr()), 1).unwrap();
    let mut page = String::new();
    let mut stream = TcpStream::connect(server.metrics_addr().unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.contains(r#"signed_payload="True""#), "{page}");
}

#[test]
fn neither_the_secret_nor_a_key_shows() {
    let server = echo().auth_secret("hunter2").encrypt();
    let client = Client::new(HOST, 1).auth_secret("hunter2").encrypt();
    for shown in [format!("{server:?}"), format!("{client:?}")] {
        for field in ["auth_secret: Some(Secret(..))", "encrypt: true"] {
            assert!(shown.contains(field), "{shown}");
        }
        assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
    }
}

#[test]
fn the_python_client_of_the_readme_works() {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("\n## Encryption without TLS\n").expect("a section");
    let (_, script) = section.split_once("```python\n").expect("a script");
    let (script, _) = script.split_once("```").expect("its end");
    let server = serve(Server::new(HOST, 0, |message| {
        assert_eq!(message, value!({"foo": "bar"}));
        "got it"
    }));
    assert!(script.contains("8080"));
    let port = server.local_addr().port().to_string();
    let mut python = python::command();
    python.args(["-c", &script.replace("8080", &port)]);
    assert_eq!(peers::output(python, "", RUN_LIMIT).as_deref(), Ok("got it\n"));
}
