"""Prints what the one metrics endpoint of a process exposes after an arrpc server and client made a few calls in it."""

import arrpc  # first: it patches the standard library

import http.client
import threading
import time
from queue import Queue

import ports
from arrpc.error import RpcException, RpcTimeoutException


def handler(message):
    if message == "fail":
        raise RpcException("Something went wrong")
    if message == "wait":
        time.sleep(60)
    return message


def main():
    found = Queue()
    ports.tell(lambda *both: found.put(both))
    # Not start(background=True): that calls Thread.setDaemon, which is deprecated and warns.
    server = arrpc.Server("127.0.0.1", 0, handler, metrics=True, metrics_port=0)
    threading.Thread(target=server.start, daemon=True).start()
    port, metrics_port = found.get(timeout=10)

    client = arrpc.Client("127.0.0.1", port, timeout=0.2, metrics=True, metrics_port=metrics_port)
    for message, expected in [("hello", None), ("fail", RpcException), ("wait", RpcTimeoutException)]:
        try:
            client.send(message)
            outcome = None
        except (RpcException, RpcTimeoutException) as error:
            outcome = type(error)
        assert outcome is expected, f"{message}: {outcome}"

    connection = http.client.HTTPConnection("127.0.0.1", metrics_port, timeout=10)
    connection.request("GET", "/metrics")
    print(connection.getresponse().read().decode(), end="")


if __name__ == "__main__":
    main()
