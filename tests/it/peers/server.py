"""An unmodified arrpc.Server on 127.0.0.1.

The first line it prints is that port, followed by the one of its metrics if it has any.
"""

import arrpc  # first: it patches the standard library

import argparse
import time

import ports
from arrpc.error import RpcException
from lengths import of_length, str_of_length
from msgpack import packb


def echo(message):
    return message


def got_it(message):
    return "got it"


def fail(message):
    raise RpcException("Something went wrong")


def crash(message):
    raise ValueError("a bug in the handler")


def slow(message):
    time.sleep(message["sleep"])
    return message["n"]


def sized(n):
    return str_of_length(n) or of_length(n)


def length(message):
    return len(packb(message, use_bin_type=True))


def int_keys(message):
    return {1: "one", 2: "two"}


# The methods of the examples of the JSON-RPC specification.
METHODS = {
    "subtract": lambda minuend, subtrahend: minuend - subtrahend,
    "update": lambda a, b, c, d, e: None,
    "sum": lambda a, b, c: a + b + c,
    "notify_hello": lambda number: None,
    "get_data": lambda: ["hello", 5],
}


def methods(message):
    method = METHODS.get(message["method"])
    if method is None:
        raise RpcException(f"[unknown_method] there is no method {message['method']}")
    params = message.get("params", [])
    try:
        return method(**params) if isinstance(params, dict) else method(*params)
    except TypeError as error:
        raise RpcException(f"[invalid_params] {error}")


HANDLERS = {
    handler.__name__: handler
    for handler in (echo, got_it, fail, crash, slow, sized, length, int_keys, methods)
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, for a free one")
    parser.add_argument("--handler", choices=HANDLERS, default="echo")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), default=(None, None))
    parser.add_argument("--secret")
    parser.add_argument("--metrics", type=int, metavar="PORT", help="0 for a free one")
    args = parser.parse_args()

    ports.tell(lambda *found: print(*(port for port in found if port), flush=True))
    certfile, keyfile = args.tls
    arrpc.Server(
        "127.0.0.1", args.port, HANDLERS[args.handler],
        tls_certfile=certfile, tls_keyfile=keyfile, auth_secret=args.secret,
        metrics=args.metrics is not None, metrics_port=args.metrics,
    ).start()


if __name__ == "__main__":
    main()
