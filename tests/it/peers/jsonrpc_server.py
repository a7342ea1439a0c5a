"""A JSON-RPC server of jsonrpclib-pelix on 127.0.0.1: [CERT KEY [CLIENT_CA]].

The first line it prints is its port. It keeps connections open, serves each on a thread, and wants
the token "sesame" under /private.
"""

import ssl
import sys
from socketserver import ThreadingMixIn

from jsonrpclib import Fault
from jsonrpclib.SimpleJSONRPCServer import SimpleJSONRPCRequestHandler, SimpleJSONRPCServer


class Handler(SimpleJSONRPCRequestHandler):
    protocol_version = "HTTP/1.1"
    rpc_paths = ("/api", "/private")

    def do_POST(self):
        if self.path == "/private" and self.headers.get("Authorization") != "Bearer sesame":
            self.send_error(401)
            return
        super().do_POST()


class Server(ThreadingMixIn, SimpleJSONRPCServer):
    daemon_threads = True


logged = []


def echo(value):
    return value


def greet(name, greeting="hello"):
    return f"{greeting} {name}"


def log(text):
    logged.append(text)


def fail():
    return Fault(7, "it fails", data={"retry": False})


def main():
    server = Server(("127.0.0.1", 0), requestHandler=Handler, logRequests=False)
    for method in (echo, greet, log, fail):
        server.register_function(method)
    server.register_function(lambda: logged, "logged")
    server.register_function(lambda: {"$gt": 2**70, "n": None}, "odd")
    if len(sys.argv) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*sys.argv[1:3])
        for client_ca in sys.argv[3:]:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
