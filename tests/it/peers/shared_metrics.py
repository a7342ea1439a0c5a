"""Prints what the one metrics endpoint of a process exposes after arrpc clients made a few calls to its two servers.

Arguments: the certificate and the key of the second server, which has TLS and a secret, and its CA.
The first line is the ports: of the plain server, of the second one, and of one that is not there.
"""

import arrpc  # first: it patches the standard library

import http.client
import socket
import sys
import threading
import time
from queue import Queue

import ports
from arrpc.error import AuthException, ConnectException, RpcException, RpcTimeoutException


def handler(message):
    if message == "fail":
        raise RpcException("Something went wrong")
    if message == "wait":
        time.sleep(60)
    return message


def main():
    found = Queue()
    ports.tell(lambda *both: found.put(both))

    certfile, keyfile, cafile = sys.argv[1:]

    def start(**options):
        # Not start(background=True): that calls Thread.setDaemon, which is deprecated and warns.
        server = arrpc.Server("127.0.0.1", 0, handler, metrics=True, metrics_port=0, **options)
        threading.Thread(target=server.start, daemon=True).start()
        return found.get(timeout=10)

    plain, metrics_port = start()
    secure, _ = start(tls_certfile=certfile, tls_keyfile=keyfile, auth_secret="secret")
    with socket.socket() as reserved:  # bound, not listening
        reserved.bind(("127.0.0.1", 0))
        closed = reserved.getsockname()[1]
        for port, secret, timeout, message, expected in [
            (plain, None, None, "hello", None),
            (plain, None, None, "fail", RpcException),
            (plain, None, 0.2, "wait", RpcTimeoutException),
            (secure, "secret", None, "hello", None),
            (secure, "secret", None, "hello", None),
            (secure, "Secret", None, "hello", AuthException),
            (secure, None, None, "hello", AuthException),
            (closed, None, None, "hello", ConnectException),
        ]:
            client = arrpc.Client(
                "127.0.0.1", port, timeout=timeout, con_max_retries=1, auth_secret=secret,
                tls_cafile=cafile if port == secure else None, metrics=True, metrics_port=metrics_port,
            )
            try:
                client.send(message)
                outcome = None
            except (AuthException, ConnectException, RpcException, RpcTimeoutException) as error:
                outcome = type(error)
            assert outcome is expected, f"{message}: {outcome}"

    print(plain, secure, closed)
    connection = http.client.HTTPConnection("127.0.0.1", metrics_port, timeout=10)
    connection.request("GET", "/metrics")
    print(connection.getresponse().read().decode(), end="")


if __name__ == "__main__":
    main()
