//! Batches of the JSON-RPC client: each call gets its own reply, whatever the service makes of it.

use arrpc::jsonrpc::Error;
use arrpc::jsonrpc::blocking::{Batch, Client};
use arrpc::{Value, value};
use serde_json::{Value as Json, json};

use crate::http_service::{Answer, Request, Service, ok, raw, status};
use crate::raw::PATIENCE;

fn batch(respond: impl Fn(&Request) -> Answer + Clone + Send + 'static) -> (Batch, Service) {
    let service = Service::start(respond);
    (Client::new(service.url()).timeout(PATIENCE).batch(), service)
}

/// The replies to a batch, one for each call: its result is the params.
fn echoed(request: &Request) -> Vec<Json> {
    let calls = request.body.as_array().expect("a batch").iter();
    let calls = calls.filter(|call| call.get("id").is_some());
    calls
        .map(|call| json!({"jsonrpc": "2.0", "id": call["id"], "result": call["params"]}))
        .collect()
}

#[track_caller]
fn assert_protocol<T: std::fmt::Debug>(result: Result<T, Error>, why: &str) {
    match result {
        Err(Error::Protocol(text)) => assert!(text.contains(why), "{text:?} lacks {why:?}"),
        other => panic!("expected {why:?}: {other:?}"),
    }
}

#[test]
fn replies_find_their_calls_in_whatever_order_they_come() {
    let (mut batch, service) = batch(|request| {
        let mut replies = echoed(request);
        replies.reverse();
        ok(&json!(replies))
    });
    let first = batch.call::<[u8; 1]>("a", (1,)).expect("params");
    batch.notify("log", ("x",)).expect("params");
    let second = batch.call::<(String,)>("b", ("two",)).expect("params");
    let none = batch.call::<Option<u8>>("c", ()).expect("no params");
    assert_protocol(batch.notify("d", 5), "params must be");
    let mut replies = batch.send().expect("replies");
    assert_eq!(replies.take(second).expect("a result").0, "two");
    assert_eq!(replies.take(none).expect("a result"), None);
    assert_eq!(replies.take(first).expect("a result"), [1]);
    let sent = service.request().body;
    let methods: Vec<_> = sent.as_array().expect("a batch").iter().map(|c| &c["method"]).collect();
    assert_eq!(methods, ["a", "log", "b", "c"]);
    assert!(sent[1].get("id").is_none());
}

#[test]
fn all_results_come_in_the_order_of_the_calls() {
    let (mut batch, _service) = batch(|request| {
        let mut replies = echoed(request);
        replies.swap(0, 2);
        ok(&json!(replies))
    });
    for number in 0..100 {
        let _ = batch.call::<Value>("m", (number,)).expect("params");
    }
    let results: Result<Vec<[u8; 1]>, _> =
        batch.send().expect("replies").into_vec().into_iter().collect();
    assert!(results.expect("results").into_iter().flatten().eq(0..100));
}

#[test]
fn each_call_fails_for_itself() {
    let (mut batch, _service) = batch(|request| {
        let mut replies = echoed(request);
        let error = json!({"code": 7, "message": "no", "data": [1]});
        replies[1] = json!({"id": replies[1]["id"], "error": error});
        let twice = replies[3].clone();
        replies[2]["id"] = json!("odd");
        replies.push(twice);
        ok(&json!(replies))
    });
    let handles: Vec<_> =
        (0..5).map(|number| batch.call::<[u8; 1]>("m", (number,)).expect("params")).collect();
    let mut replies = batch.send().expect("replies");
    let mut results = handles.into_iter().map(|handle| replies.take(handle));
    let mut next = || results.next().expect("five");
    assert_eq!(next().expect("a result"), [0]);
    match next() {
        Err(Error::Rpc { code: 7, message, data: Some(data) }) => {
            assert_eq!((message.as_str(), data), ("no", value!([1])));
        }
        other => panic!("{other:?}"),
    }
    assert_protocol(next(), "has not answered this call, but one that was not made");
    assert_protocol(next(), "more than once");
    assert_eq!(next().expect("a result"), [4]);
}

#[test]
fn a_call_without_a_reply_is_told_what_came_instead() {
    let unread = json!({"id": null, "error": {"code": -32600, "message": "?"}});
    for (reply, why) in [
        (None, "has not answered this call"),
        (Some(unread), "but says to one that it could not read: ? (code -32600)"),
        (Some(json!({"id": 1})), "but sent what is no reply, it has neither"),
        (Some(json!(5)), "it is no object"),
    ] {
        let (mut batch, _service) = batch(move |request| {
            let mut replies = echoed(request);
            replies.pop();
            replies.extend(reply.clone());
            ok(&json!(replies))
        });
        let first = batch.call::<[u8; 1]>("m", (1,)).expect("params");
        let second = batch.call::<[u8; 1]>("m", (2,)).expect("params");
        let mut replies = batch.send().expect("replies");
        assert_eq!(replies.take(first).expect("a result"), [1]);
        assert_protocol(replies.take(second), why);
    }
}

#[test]
fn a_result_of_another_form_does_not_spoil_the_others() {
    let (mut batch, _service) = batch(|request| ok(&json!(echoed(request))));
    let number = batch.call::<u8>("m", (1,)).expect("params");
    let array = batch.call::<[u8; 1]>("m", (1,)).expect("params");
    let mut replies = batch.send().expect("replies");
    assert_protocol(replies.take(number), "expected u8, got an array");
    assert_eq!(replies.take(array).expect("a result"), [1]);
}

#[test]
fn a_handle_of_another_batch_gets_nothing() {
    let service = Service::start(|request| ok(&json!(echoed(request))));
    let client = Client::new(service.url()).timeout(PATIENCE);
    let (mut first, mut second) = (client.batch(), client.batch());
    let strange = first.call::<Value>("m", (1,)).expect("params");
    let _ = second.call::<Value>("m", (2,)).expect("params");
    match second.send().expect("replies").take(strange) {
        Err(Error::Config(text)) => assert_eq!(text, "the handle is of another batch"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_that_is_refused_as_a_whole_fails_as_a_whole() {
    let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "no"}});
    let send = |respond: fn(&Request) -> Answer| {
        let (mut batch, _service) = batch(respond);
        let _ = batch.call::<Value>("m", ()).expect("params");
        batch.send().map(|_| ())
    };
    let (mut refused, _service) = batch(move |_| ok(&error));
    refused.notify("m", ()).expect("params");
    match refused.send() {
        Err(Error::Rpc { code: -32600, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_protocol(send(|_| status("200 OK", "")), "it is no array of them");
    assert_protocol(send(|_| ok(&json!({"id": 1, "result": 1}))), "it is no array of them");
    for answer in [(|_| status("502 Bad Gateway", "<html>")) as fn(&Request) -> Answer, |_| {
        status("502 Bad Gateway", "[]")
    }] {
        match send(answer) {
            Err(Error::Http { status: 502, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_batch_of_notifications_has_no_replies_and_an_empty_one_is_not_sent() {
    let (mut notifications, service) = batch(|_| raw("HTTP/1.1 204 No Content\r\n\r\n"));
    notifications.notify("a", ()).expect("params");
    notifications.notify("b", ()).expect("params");
    assert!(notifications.send().expect("it is taken").into_vec::<Value>().is_empty());
    assert_eq!(service.request().body.as_array().map(Vec::len), Some(2));

    let (empty, service) = batch(|_| raw(""));
    assert!(empty.send().expect("nothing to do").into_vec::<Value>().is_empty());
    assert!(service.connections().is_empty());
}
