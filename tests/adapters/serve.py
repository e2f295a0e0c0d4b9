"""A web server for tests: python -m tests.adapters.serve ADDRESS DIRECTORY PEM: port 8000, and 8443 by TLS."""

from __future__ import annotations

import socketserver
import ssl
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept


def main(address: str, directory: str, pem: str) -> None:
    handler = partial(Handler, directory=directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    clear, secret = Server((address, 8000), handler), Server((address, 8443), handler)
    secret.socket = context.wrap_socket(secret.socket, server_side=True)
    threading.Thread(target=clear.serve_forever, daemon=True).start()
    print("ready", flush=True)
    secret.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
