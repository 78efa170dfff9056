"""HTTP server that runs as a tier in the gateway tests.

- `/metrics` returns a metric.
- All other paths return a JSON object with the tier, the path and the request id.
- `/sleep/SECONDS` waits SECONDS seconds before the answer.

The server decodes paths and merges repeated slashes, as web frameworks do.
"""

import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from posixpath import normpath
from urllib.parse import unquote


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        # Read the path from the request line, because the base class merges leading slashes in `self.path`.
        raw_target = self.requestline.split()[1]
        raw_path = raw_target.partition("?")[0]
        path = normpath("/" + unquote(raw_path).lstrip("/"))
        if path.startswith("/sleep/"):
            time.sleep(float(path.removeprefix("/sleep/")))
        answer = {"tier": os.environ.get("ANSWER", ""), "path": raw_target, "id": self.headers.get("X-Request-Id", "")}
        body = b"# TYPE secret_figure gauge\nsecret_figure 1\n" if path == "/metrics" else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
