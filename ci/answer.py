"""The answers of an environment's URL after an update: an environment that answers users with errors is not up."""

import http.client
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pulumi import RunError

from components.config import App

PATIENCE = 10.0
"""Seconds in which a gateway hears of the last switch, and a connection is taken."""
LIMIT = 2**24
"""Bytes of an answer that are counted."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer to a GET, or the reason why there is none."""

    status: int = 0
    size: int = 0
    reason: str = ""

    def __str__(self) -> str:
        return f"answers {self.status}, {self.size} bytes" if self.status else f"does not answer: {self.reason}"

    def is_error(self, promised: bool) -> bool:
        """True for no answer and for 5xx; for 4xx only where the application says that users visit the path."""
        return not self.status or self.status >= (400 if promised else 500)


def check(url: str, app: App, stack: str) -> None:
    """Say how the first path answers, and refuse an environment of which any path is an error.

    The paths are `app.visits`; where the application names none it is `/`, for which an API may well have no page.

    Raises:
        RunError: a path answers with an error, or does not answer.
    """
    promised = "visits" in app.model_fields_set
    paths: Sequence[str] = app.visits if promised else ("/",)
    deadline = time.monotonic() + PATIENCE
    for number, path in enumerate(paths):
        answer = ask(url, path)
        while answer.is_error(promised) and time.monotonic() < deadline:
            time.sleep(0.5)
            answer = ask(url, path)
        if answer.is_error(promised):
            raise RunError(
                f"{url}{path} {answer}; `make status ENV={stack}` says what is ready, `make check ENV={stack}` what is wrong"
            )
        if not number:
            print(f"{url}{path.removesuffix('/')} {answer}", file=sys.stderr)


def ask(url: str, path: str) -> Answer:
    """Ask once. Certificates are not verified: a lab's gateway has made its own."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    # Browsers know these names for this machine, resolvers may not.
    host = "127.0.0.1" if name.endswith(".localhost") else name
    connection = http.client.HTTPConnection(name, parts.port, timeout=PATIENCE)
    try:
        connection.sock = socket.create_connection(
            (host, parts.port or (443 if parts.scheme == "https" else 80)), timeout=PATIENCE
        )
        if parts.scheme == "https":
            connection.sock = _anybody().wrap_socket(connection.sock, server_hostname=name)
        connection.request("GET", path, headers={"Host": parts.netloc, "User-Agent": "tiers-up"})
        found = connection.getresponse()
        return Answer(status=found.status, size=len(found.read(LIMIT)))
    except (OSError, http.client.HTTPException) as error:
        return Answer(reason=str(error) or type(error).__name__)
    finally:
        connection.close()


def _anybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
