"""A small HTTP server: health, metrics and a slow answer. It decodes a path and merges its slashes, as frameworks do."""

import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from posixpath import normpath
from urllib.parse import unquote


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        sent = self.requestline.split()[1]  # The server's own `path` has merged leading slashes.
        raw = sent.partition("?")[0]
        path = normpath("/" + unquote(raw).lstrip("/"))
        if path.startswith("/sleep/"):
            time.sleep(float(path.removeprefix("/sleep/")))
        answer = {"tier": os.environ.get("ANSWER", ""), "path": sent, "id": self.headers.get("X-Request-Id", "")}
        body = b"# TYPE secret_figure gauge\nsecret_figure 1\n" if path == "/metrics" else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
