"""Drives an unmodified arrpc.Client.

Reads a JSON command a line, and answers each with a line of JSON:
  {"send": message}   -> {"reply": reply}
  {"send_length": n}  -> {"reply_length": length}, for a message of n packed bytes (before signing)
                      or {"error": class name, "message": text}
Bytes are {"$bin": base64}, and a message may have {"$map": [[key, value], ..]}. With --lengths it reads nothing, and prints "ok COUNT".
"""

import arrpc  # first: it patches the standard library

import argparse
import base64
import json
import sys

from gevent import get_hub
from lengths import of_length
from msgpack import packb


def to_json(value):
    def bin_to_json(value):
        if isinstance(value, bytes):
            return {"$bin": base64.b64encode(value).decode()}
        raise TypeError(f"no JSON for {value!r}")

    return json.dumps(value, default=bin_to_json, ensure_ascii=False)


def from_json(text):
    def from_object(found):
        if "$bin" in found:
            return base64.b64decode(found["$bin"])
        return dict(found["$map"]) if "$map" in found else found

    return json.loads(text, object_hook=from_object)


def answer(client, command):
    try:
        if "send" in command:
            return {"reply": client.send(command["send"])}
        reply = client.send(of_length(command["send_length"]))
        return {"reply_length": None if reply is None else len(packb(reply, use_bin_type=True))}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


def converse(new_client):
    """Answers the commands on stdin, read in a thread so that the metrics endpoint goes on serving."""
    client = new_client()
    while line := get_hub().threadpool.apply(sys.stdin.readline):
        if client.ssl_context:
            client = new_client()  # arrpc's works for one send over TLS
        print(to_json(answer(client, from_json(line))), flush=True)


def try_lengths(client, first, last):
    """Sends a message of every length over one client, and expects it back."""
    for n in range(first, last + 1):
        message = of_length(n)
        try:
            reply = client.send(message)
        except Exception as error:
            sys.exit(f"length {n}: {type(error).__name__}: {error}")
        if reply != message:
            sys.exit(f"length {n}: the reply is not the message but {repr(reply)[:200]}")
    print("ok", last + 1 - first)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--tls", metavar="CA")
    parser.add_argument("--self-signed", action="store_true")
    parser.add_argument("--secret")
    parser.add_argument("--timeout", type=float)
    parser.add_argument("--retries", type=int, default=5)
    parser.add_argument("--metrics", type=int, metavar="PORT")
    parser.add_argument("--lengths", nargs=2, type=int, metavar=("FROM", "TO"))
    args = parser.parse_args()

    def new_client(timeout=args.timeout):
        return arrpc.Client(
            args.host, args.port, timeout=timeout, con_max_retries=args.retries,
            tls_cafile=args.tls, tls_self_signed=args.self_signed, auth_secret=args.secret,
            metrics=args.metrics is not None, metrics_port=args.metrics,
        )

    if args.lengths:
        try_lengths(new_client(args.timeout or 10), *args.lengths)
    else:
        converse(new_client)


if __name__ == "__main__":
    main()
