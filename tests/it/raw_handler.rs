//! Handlers that get bytes and write their replies.

use std::time::Duration;

use arrpc::{Client, Error, RpcError, Server, ServerHandle, Value, blocking, value};
use serde::{Deserialize, Serialize};

use crate::loopback::{HOST, start};
use crate::raw::{End, Raw};

fn client(server: &ServerHandle) -> blocking::Client {
    blocking::Client::new(HOST, server.local_addr().port())
}

fn rpc_error(result: Result<Value, Error>) -> String {
    match result {
        Err(Error::Rpc(error)) => error.message().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[derive(Deserialize)]
struct Order<'a> {
    name: &'a str,
    image: &'a [u8],
}

#[derive(Serialize)]
struct Receipt<'a> {
    name: &'a str,
    bytes: usize,
}

/// Takes orders, and has a word for some other messages.
fn shop() -> Server {
    Server::raw(HOST, 0, |message, reply| match message.bytes() {
        b"\xa5panic" => panic!("as it was told"),
        b"\xa5half?" => reply.write_bytes(b"\x92\x01"),
        b"\xa4two?" => reply.write_bytes(b"\x01\x02"),
        b"\xa4who?" => {
            reply.write(&message.context().peer_addr().map(|peer| peer.ip().to_string()))
        }
        b"\xa4fail" => Err(RpcError::new("it was told to")),
        [0..0x80] => reply.write_bytes(message.bytes()),
        _ => {
            let order: Order = message.read()?;
            reply.write(&Receipt { name: order.name, bytes: order.image.len() })
        }
    })
}

#[test]
fn a_message_is_read_as_a_type_that_borrows_from_it_and_the_reply_is_any_type() {
    let server = start(shop());
    let order = value!({"name": "a picture", "image": vec![7u8; 100_000]});
    let receipt = value!({"name": "a picture", "bytes": 100_000});
    assert_eq!(client(&server).send(order).expect("a reply"), receipt);
    assert_eq!(client(&server).send("who?").expect("a reply"), value!("127.0.0.1"));
}

#[test]
fn a_message_of_another_form_and_a_bad_reply_are_errors_and_leave_nothing_behind() {
    let server = start(shop());
    let client = client(&server);
    let text = rpc_error(client.send(value!({"name": 1, "image": vec![0u8]})));
    assert_eq!(text, "not a Order: invalid type: integer `1`, expected a borrowed string");
    let failed = "The handler's reply cannot be serialized, the server's log has the details";
    for message in ["half?", "two?"] {
        assert_eq!(rpc_error(client.send(message)), failed);
    }
    assert_eq!(rpc_error(client.send("fail")), "it was told to");
    let panicked = "The handler failed, the server's log has the details";
    assert_eq!(rpc_error(client.send("panic")), panicked);

    // All in one write: each has its place.
    let mut peer = Raw::connect(server.local_addr());
    peer.send(b"\x01\xa5half?\x02\xa5panic\x03\xa4fail\x04");
    peer.expect(b"\x01");
    peer.expect_text(&format!("arrpc.error.RpcException: {failed}"));
    peer.expect(b"\x02");
    peer.expect_text(&format!("arrpc.error.RpcException: {panicked}"));
    peer.expect(b"\x03");
    peer.expect_text("arrpc.error.RpcException: it was told to");
    peer.expect(b"\x04");
    peer.finish();
    peer.expect_end(End::Closed);
}

#[test]
fn only_signed_messages_reach_the_handler_of_a_server_with_a_secret() {
    let server = start(shop().auth_secret("hunter2"));
    assert!(matches!(client(&server).send(1), Err(Error::Auth(_))));
    assert_eq!(client(&server).auth_secret("hunter2").send(1).expect("a reply"), value!(1));
    // And none that nobody could verify.
    let server = start(shop());
    assert!(matches!(client(&server).auth_secret("hunter2").send(1), Err(Error::Auth(_))));
}

#[test]
fn a_text_that_is_not_utf8_is_up_to_the_handler() {
    let server = start(Server::raw(HOST, 0, |message, reply| match message.to_value() {
        Ok(value) => reply.write(&value.is_nil()),
        Err(error) => Err(error),
    }));
    let mut peer = Raw::connect(server.local_addr());
    peer.send(b"\xc0\xa2\xff\xff\xc0");
    peer.expect(b"\xc3");
    peer.expect_text("arrpc.error.RpcException: Not MessagePack: the str at offset 0 is not UTF-8, send bytes as bin");
    peer.expect(b"\xc3");
}

#[test]
fn replies_of_every_length_have_one_that_no_python_peer_waits_behind() {
    let server = start(Server::raw(HOST, 0, |message, reply| {
        let length: usize = message.read()?;
        reply.write_bytes(&rmpv_str(length))
    }));
    let mut peer = Raw::connect(server.local_addr());
    peer.send(b"\xcd\x0f\xfd"); // 4093 bytes and 3 of header: as long as what Python reads at once
    peer.expect(&[&b"\xdb\x00\x00\x0f\xfd"[..], &[b'x'; 4093]].concat());
    let client = Client::new(HOST, server.local_addr().port()).timeout(Duration::from_secs(20));
    let reply = smol::block_on(client.send(8189)).expect("a reply");
    assert_eq!(reply.as_str().map(str::len), Some(8189));
}

fn rmpv_str(length: usize) -> Vec<u8> {
    let mut packed = Vec::new();
    rmpv::encode::write_value(&mut packed, &"x".repeat(length).into()).expect("writing to a Vec");
    packed
}
