"""Application that reads only DATABASE_URL and SECRET_KEY, as many images do, and that refuses requests for other hosts.

The image has an entrypoint, so `command` and the commands of tasks are its arguments: `serve`, `work`, `migrate`, `slow`, `alive`.
"""

import hashlib
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pg8000.dbapi


def connect() -> pg8000.dbapi.Connection:
    url = urlsplit(os.environ["DATABASE_URL"])
    return pg8000.dbapi.connect(
        user=unquote(url.username or ""),
        password=unquote(url.password or ""),
        host=url.hostname or "",
        port=url.port or 5432,
        database=unquote(url.path[1:]),
    )


def execute(statement: str) -> list[list[object]]:
    connection = connect()
    try:
        cursor = connection.cursor()
        cursor.execute(statement)
        rows = list(cursor.fetchall()) if cursor.description else []
        connection.commit()
        return rows
    finally:
        connection.close()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.headers["Host"].partition(":")[0] != os.environ["ALLOWED_HOST"]:
            return self.respond(421, f"wrong host {self.headers['Host']}")
        pages = {
            "/api/health": lambda: "ok",
            "/api/visits": lambda: str(execute("select count(*) from visits")[0][0]),
            "/api/key": lambda: hashlib.sha256(os.environ["SECRET_KEY"].encode()).hexdigest(),
        }
        page = pages.get(self.path)
        return self.respond(200, page()) if page else self.respond(404, "not found")

    def respond(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    action = sys.argv[1]
    if action == "serve":
        ThreadingHTTPServer(("", 8000), Handler).serve_forever()
    if action == "migrate":
        execute("create table if not exists visits (at timestamptz not null default now())")
    if action == "work":
        while True:
            execute("insert into visits default values")
            time.sleep(1)
    if action == "slow":
        time.sleep(600)
    if action == "alive":
        execute("select 1")


main()
