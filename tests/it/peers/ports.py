"""Tells the ports that arrpc got for port 0, which the package keeps to itself.

The package's code stays as it is: two names that its modules imported are wrapped.
"""

import arrpc
import arrpc.metrics
import arrpc.server
from prometheus_client import start_http_server


def tell(callback):
    """Calls `callback(port, metrics_port)` when a server listens; `metrics_port` is None without metrics."""
    metrics_port = None

    def start_metrics(port):
        nonlocal metrics_port
        endpoint, _ = start_http_server(port, addr="127.0.0.1")
        metrics_port = endpoint.server_port

    class StreamServer(arrpc.server.StreamServer):
        def start(self):
            super().start()
            callback(self.server_port, metrics_port)

    arrpc.metrics.start_http_server = start_metrics
    arrpc.server.StreamServer = StreamServer
