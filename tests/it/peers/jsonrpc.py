"""Calls a JSON-RPC server over HTTP: URL TOKEN. Prints what `requests` gets, a line each, and then
what the library `jsonrpclib` gets."""

import sys

import jsonrpclib
import requests

VALUES = [
    None, True, 0, -1, 2**53 + 1, 2**64 - 1, -(2**63), 1.0, 0.1, -0.0, 1e300,
    "", "héllo ✓ 日本語 🦀 \x00\u2028", [], {}, [1, [2.5, None]], {"ключ": {"a": []}},
]


def same(value, other):
    """As ==, but 1 is neither 1.0 nor True, and 0.0 is not -0.0."""
    return repr(value) == repr(other)


def with_requests(url, token):
    with requests.Session() as session:

        def post(body, **headers):
            response = session.post(url, json=body, headers=headers, timeout=60)
            return response.status_code, response.json() if response.content else None

        def call(method, params=None, **headers):
            request = {"jsonrpc": "2.0", "method": method, "id": 1}
            return post(request if params is None else {**request, "params": params}, **headers)[1]

        print(call("plus", [10, 20])["result"], call("plus", {"b": 1, "a": 2})["result"])
        print([same(call("echo", [value])["result"], value) for value in VALUES].count(True))
        print(post({"jsonrpc": "2.0", "method": "plus", "params": [1, 2]}))
        status, batch = post([
            {"jsonrpc": "2.0", "method": "plus", "params": [1, 2], "id": "a"},
            {"jsonrpc": "2.0", "method": "plus", "params": [3, 4]},
            {"jsonrpc": "2.0", "method": "none", "id": 2**53 + 1},
            7,
        ])
        print(status, [(one["id"], one.get("result", one.get("error", {}).get("code"))) for one in batch])
        for method, params in [("none", []), ("plus", [1]), ("fail", []), ("private", [])]:
            error = call(method, params)["error"]
            print(error["code"], error["message"], error.get("data"))
        print(call("private", Authorization=f"Bearer {token}")["result"])
        session.cookies.set("api_token", token)
        print(call("private")["result"])
        malformed = session.post(url, "{", headers={"Content-Type": "application/json"}, timeout=60)
        print(malformed.status_code, malformed.json()["error"])
        chunks = iter([b'{"jsonrpc": "2.0", "id": 1, ', b'"method": "plus", "params": [5, 6]}'])
        chunked = session.post(url, chunks, headers={"Content-Type": "application/json"}, timeout=60)
        print(chunked.json()["result"])


def with_jsonrpclib(url, token):
    server = jsonrpclib.ServerProxy(url)
    print(server.plus(10, 20), server.plus(a=2, b=1), server.deep.name("bob"))
    print([same(server.echo(value), value) for value in VALUES].count(True))
    try:
        print(server._notify.plus(1, 2))
    except jsonrpclib.jsonrpc.TransportError as error:
        print(error.args[1])  # it takes anything but 200 for an error, and loses its connection
        server = jsonrpclib.ServerProxy(url)
    batch = jsonrpclib.MultiCall(server)
    batch.plus(1, 2)
    batch._notify.plus(3, 4)
    batch.echo("✓")
    print(list(batch()))
    for call in [lambda: server.none(), lambda: server.plus(1, "x"), lambda: server.fail(), lambda: server.private()]:
        try:
            print(call())
        except jsonrpclib.ProtocolError as error:
            print(type(error).__name__, *error.args[0])
    print(jsonrpclib.ServerProxy(url, headers={"X-Api-Token": token}).private())


with_requests(*sys.argv[1:])
with_jsonrpclib(*sys.argv[1:])
