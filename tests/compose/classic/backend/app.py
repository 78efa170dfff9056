import json
import os
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
from redis import Redis


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/api/health":
            self.answer(200, {"status": "ok"})
        elif self.path == "/api/todos":
            with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
                todos = [text for (text,) in connection.execute("SELECT text FROM todos ORDER BY id DESC LIMIT 20")]
            self.answer(200, {"todos": todos, "asked": Redis.from_url(os.environ["REDIS_URL"]).incr("asked")})
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
        with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            connection.execute("INSERT INTO todos (text) VALUES (%s)", (text,))
        self.answer(201, {"text": text})

    def answer(self, status: int, what: object) -> None:
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def stop(*_: object) -> None:
    raise SystemExit


signal.signal(signal.SIGTERM, stop)
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
