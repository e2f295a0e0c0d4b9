"""A server that answers like a Kubernetes API: python api.py ADDRESS CERTIFICATE KEY TOKEN_FILE."""

from __future__ import annotations

import json
import socketserver
import ssl
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

PORT = 6443
ADDRESS, CERTIFICATE, KEY, TOKEN_FILE = sys.argv[1:]
PODS = "/api/v1/namespaces/default/pods"
pods: dict[str, dict[str, Any]] = {"web-0": {"phase": "Running"}, "web-1": {"phase": "Running"}}


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.allowed() and self.path == PODS:
            items = [{"metadata": {"name": name}, "status": status} for name, status in pods.items()]
            self.answer(200, {"kind": "PodList", "apiVersion": "v1", "items": items})

    def do_DELETE(self) -> None:
        if self.allowed() and pods.pop(self.path.removeprefix(f"{PODS}/"), {}):
            self.answer(200, {"kind": "Status", "status": "Success"})

    def allowed(self) -> bool:
        token = Path(TOKEN_FILE).read_text().partition("Bearer ")[2].strip()
        if self.headers.get("Authorization") == f"Bearer {token}":
            return True
        self.answer(401, {"kind": "Status", "status": "Failure", "reason": "Unauthorized"})
        return False

    def answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None: ...


if __name__ == "__main__":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    server = socketserver.ThreadingTCPServer((ADDRESS, PORT), Api, bind_and_activate=False)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.server_bind()
    server.server_activate()
    print("ready", flush=True)
    server.serve_forever()
