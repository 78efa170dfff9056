"""Check of an environment's URL after an update: an environment that answers users with errors is not up."""

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
"""Seconds for a gateway to notice the last switch, and timeout of a connection."""
LIMIT = 2**24
"""Maximum bytes of a response that are read."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Response to a GET request, or the reason why it failed."""

    status: int = 0
    size: int = 0
    reason: str = ""

    def __str__(self) -> str:
        return f"answers {self.status}, {self.size} bytes" if self.status else f"does not answer: {self.reason}"

    def is_error(self, promised: bool) -> bool:
        """Return True for no response and for 5xx, and for 4xx if the application lists the path in `visits` (`promised`)."""
        return not self.status or self.status >= (400 if promised else 500)


def check(url: str, app: App, stack: str) -> None:
    """Print the response of the first path, and refuse an environment in which any path is an error.

    The paths are `app.visits`. Without them only `/` is checked, for which a 4xx is accepted: an API may have no page
    there.

    Raises:
        RunError: a path answers with an error or does not answer.
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
    """Send one GET request. Certificates are not verified, because a lab's gateway has a self-signed one."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    # Browsers resolve these names to this machine; resolvers may not.
    host = "127.0.0.1" if name.endswith(".localhost") else name
    connection = http.client.HTTPConnection(name, parts.port, timeout=PATIENCE)
    try:
        connection.sock = socket.create_connection(
            (host, parts.port or (443 if parts.scheme == "https" else 80)), timeout=PATIENCE
        )
        if parts.scheme == "https":
            connection.sock = _unverified().wrap_socket(connection.sock, server_hostname=name)
        connection.request("GET", path, headers={"Host": parts.netloc, "User-Agent": "tiers-up"})
        response = connection.getresponse()
        return Answer(status=response.status, size=len(response.read(LIMIT)))
    except (OSError, http.client.HTTPException) as error:
        return Answer(reason=str(error) or type(error).__name__)
    finally:
        connection.close()


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
