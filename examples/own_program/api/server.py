"""Count visits in Redis. The release and its slot are in every answer."""

import json
import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def ask(*words: str) -> str:
    """Send one command to the cache and return the first line of its reply (RESP, the protocol of Redis)."""
    password = Path(os.environ["CACHE_PASSWORD_FILE"]).read_text().strip()
    with socket.create_connection((os.environ["CACHE_HOST"], int(os.environ["CACHE_PORT"])), timeout=5) as connection:
        for command in (("AUTH", password), words):
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in command]
            connection.sendall(f"*{len(parts)}\r\n{''.join(parts)}".encode())
            reply = connection.makefile("rb").readline().decode().strip()
    return reply


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path not in ("/health", "/api/visits"):
            return self.answer(404, {"error": "there is no such page"})
        if self.path == "/health":
            return self.answer(200, {"status": "ok"})
        count = int(ask("INCR", "visits").removeprefix(":"))
        return self.answer(200, {"visits": count, "greeting": os.environ["GREETING"], "release": os.environ["RELEASE"]})

    def answer(self, status: int, body: dict[str, object]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        print(json.dumps({"message": format % args}), flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128


def main() -> None:
    server = Server(("0.0.0.0", 8000), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    sys.exit(0)


if __name__ == "__main__":
    main()
