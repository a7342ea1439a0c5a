"""A client of a Unix socket that has nothing but a MessagePack library: prints its replies."""

import socket
import sys

import msgpack

sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
replies = msgpack.Unpacker(sock.makefile("rb", 0))

for message in [{"foo": "bar"}, ["x" * 100_000], None]:
    sock.sendall(msgpack.packb(message))
    print(replies.unpack() == message)

sock.sendall(b"".join(msgpack.packb(number) for number in range(1000)))
print([replies.unpack() for _ in range(1000)] == list(range(1000)))
