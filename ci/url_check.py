"""Check of an environment's URL after an update. The check fails if a path answers with an error."""

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
"""Time limit in seconds for all retries while a gateway applies the last switch. It is also the timeout of each connection."""
LIMIT = 2**24
"""Maximum bytes of a response that are read."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """Response to a GET request, or the reason why the request failed."""

    status: int = 0
    size: int = 0
    reason: str = ""

    def __str__(self) -> str:
        return f"answers {self.status}, {self.size} bytes" if self.status else f"does not answer: {self.reason}"

    def is_error(self, is_listed: bool) -> bool:
        """Return True if no response came, or if the status is an error.

        For a path in `app.visits`, 400 or more is an error. For any other path, 500 or more is an error.
        """
        return not self.status or self.status >= (400 if is_listed else 500)


def check(url: str, app: App, stack: str) -> None:
    """Request the paths of `app.visits`, and print the response of the first path.

    Without `app.visits` only `/` is requested. A 4xx status is then no error, because an API may have no page at `/`.

    Raises:
        RunError: a path answers with an error or does not answer.
    """
    is_listed = "visits" in app.model_fields_set
    _check_paths(url, app.visits if is_listed else ("/",), stack, is_listed=is_listed)


def check_service(url: str, app: App, service: str, stack: str) -> None:
    """Request the first path of a service with a host of its own, and print the response. A 4xx status is no error.

    Args:
        url: address of the service (`urls` of the stack's outputs).
        app: the application.
        service: name of the service.
        stack: name of the stack.

    Raises:
        RunError: the path answers with an error or does not answer.
    """
    _check_paths(url, app.routes.get(service, ("/",))[:1], stack, is_listed=False)


def _check_paths(url: str, paths: Sequence[str], stack: str, *, is_listed: bool) -> None:
    deadline = time.monotonic() + PATIENCE
    for number, path in enumerate(paths):
        response = get(url, path)
        while response.is_error(is_listed) and time.monotonic() < deadline:
            time.sleep(0.5)
            response = get(url, path)
        if response.is_error(is_listed):
            raise RunError(
                f"{url}{path} {response}; run `make status ENV={stack}` to see what is ready, and `make check ENV={stack}` to find the cause"
            )
        if not number:
            print(f"{url}{path.removesuffix('/')} {response}", file=sys.stderr)


def get(url: str, path: str) -> Response:
    """Send a GET request. Certificates are not verified, because the lab's gateway has a self-signed certificate."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    # Browsers resolve .localhost to this machine, but other resolvers may not.
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
        return Response(status=response.status, size=len(response.read(LIMIT)))
    except (OSError, http.client.HTTPException) as error:
        return Response(reason=str(error) or type(error).__name__)
    finally:
        connection.close()


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
