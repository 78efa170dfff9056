"""Tests of a service with a host of its own (`host`) on both platforms: two frontends at two hosts.

The tests run in file order, from the first deployment to the removal.
"""

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from components.platforms import COOKIE

from .stack import (
    PAGE,
    ClusterStack,
    Stack,
    create_board,
    deployment,
    destroy_without_leftovers,
    eventually,
    repeat_requests,
    steady_requests,
)

SERVER = """
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = {name: os.environ.get(name) for name in ("RELEASE", "SLOT", "PUBLIC_URL", "ADMIN_PUBLIC_URL", "ADMIN_URL")}
        body = json.dumps(body | {"service": "admin", "host": self.headers["Host"], "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

ThreadingHTTPServer(("", 8300), Handler).serve_forever()
"""
"""Second frontend: answers each request with its name, its addresses, and the host of the request."""


@pytest.fixture(
    scope="module",
    params=[pytest.param("docker", marks=pytest.mark.long), pytest.param("kubernetes", marks=pytest.mark.long)],
)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deploy the board without its second frontend."""
    stack = create_board(request.param, tmp_path_factory.mktemp("hosts"), "e2e-hosts")
    if isinstance(stack, ClusterStack):
        stack.environment["kubernetes"]["gateway"]["host_header"] = "X-Forwarded-Host"
    with deployment(stack):
        yield stack


def admin(stack: Stack) -> dict[str, Any]:
    """Return the entry of the second frontend for `app.services`."""
    build, command = stack.app["api"]["build"], ["python", "-c", SERVER]
    return {"tier": "web", "build": build, "command": command, "port": 8300, "host": "admin"}


def admin_host(stack: Stack) -> str:
    """Return the header Host that browsers send to the second frontend."""
    if isinstance(stack, ClusterStack):
        return f"admin.{stack.host}:{urlsplit(stack.url).port}"
    return f"admin.localhost:{urlsplit(stack.url).port}"


def get_admin(stack: Stack, path: str = "/", **headers: str) -> requests.Response:
    return stack.get(path, headers={"Host": admin_host(stack), **headers})


@contextmanager
def admin_requests(stack: Stack) -> Generator[Counter[str]]:
    """Request the second frontend while the `with` block runs, and count the answers by status and service."""
    session = requests.Session()
    session.verify = False

    def request(_: int) -> int:
        response = session.get(f"{stack.url}/x", headers={"Host": admin_host(stack)}, timeout=10)
        return response.status_code if response.status_code != 200 or response.json()["service"] == "admin" else 0

    with session, repeat_requests(request, 0.02) as statuses:
        yield statuses


def update_without_failed_requests(stack: Stack, **variables: str) -> None:
    """Update the stack, and assert that no request at any of the two hosts fails."""
    with steady_requests(stack) as statuses, admin_requests(stack) as admin_statuses:
        stack.up(check=True, **variables)
    print(dict(statuses), dict(admin_statuses))
    assert set(statuses) <= {"200", "201"}, statuses
    assert set(admin_statuses) == {"200"} and admin_statuses["200"] > 50, admin_statuses


def test_host_without_a_service_is_not_routed_to_a_service(stack: Stack) -> None:
    if isinstance(stack, ClusterStack):
        assert get_admin(stack).status_code == 404
    else:
        assert "text/html" in get_admin(stack).headers["Content-Type"]


def test_release_adds_a_host_and_loses_no_request_at_the_other_host(stack: Stack) -> None:
    stack.app["services"] = {"admin": admin(stack)}
    stack.environment["tiers"] = {**stack.environment.get("tiers", {}), "admin": {"cpu": 0.2}}
    stack.build_images()
    with steady_requests(stack) as statuses:
        stack.up()
    assert set(statuses) <= {"200", "201"}, statuses
    assert stack.live()["slot"] == "green"
    assert set(stack.up().changes) == {"unchanged"}


def test_each_host_is_answered_by_its_own_service(stack: Stack) -> None:
    eventually(lambda: get_admin(stack, "/api/release").json()["service"] == "admin")
    answer = get_admin(stack, "/api/release").json()
    assert (answer["path"], answer["host"], answer["SLOT"]) == ("/api/release", admin_host(stack), "green")
    assert answer["RELEASE"] == stack.live()["release"]
    assert "text/html" in stack.get("/").headers["Content-Type"]
    assert get_admin(stack, Host=admin_host(stack).upper()).json()["service"] == "admin"


def test_services_receive_the_public_addresses(stack: Stack) -> None:
    answer = get_admin(stack).json()
    outputs = stack.outputs()
    assert answer["PUBLIC_URL"] == outputs["url"]
    assert {"admin": answer["ADMIN_PUBLIC_URL"]} == outputs["urls"]
    assert urlsplit(answer["ADMIN_PUBLIC_URL"]).netloc == admin_host(stack)


def test_metrics_are_hidden_at_every_host(stack: Stack) -> None:
    for path in ("/metrics", "/metrics/x", "//metrics", "/%6detrics"):
        assert stack.get(path).status_code == 404
        assert get_admin(stack, path).status_code == 404


def test_checks_request_each_service_at_its_host(stack: Stack) -> None:
    assert "the admin is ready: /health, through the gateway" in stack.run_ci("check")


def test_readiness_path_of_a_service_answers_at_its_host_only(stack: Stack) -> None:
    assert get_admin(stack, "/.gateway/admin", **{"X-Tiers-Slot": "green"}).json()["path"] == "/health"
    other = stack.get("/.gateway/admin", headers={"X-Tiers-Slot": "green"})
    assert "text/html" in other.headers["Content-Type"]


def test_one_switch_moves_both_hosts_and_loses_no_request(stack: Stack) -> None:
    page = get_admin(stack, **PAGE)
    stack.app["services"]["admin"]["env"] = {"LOG_LEVEL": "debug"}
    update_without_failed_requests(stack)
    assert stack.live()["slot"] == "blue"
    eventually(lambda: get_admin(stack).json()["SLOT"] == "blue")
    assert get_admin(stack).json()["RELEASE"] == stack.live()["release"]
    # A page that was loaded before the switch stays on its release, also at this host.
    cookie = f"{COOKIE}={page.cookies[COOKIE]}"
    assert get_admin(stack, Cookie=cookie).json()["SLOT"] == "green"
    assert set(stack.up().changes) == {"unchanged"}


def test_rollback_moves_both_hosts_and_loses_no_request(stack: Stack) -> None:
    update_without_failed_requests(stack, TIERS_RELEASE="previous")
    assert stack.live()["slot"] == "green"
    eventually(lambda: get_admin(stack).json()["SLOT"] == "green")


@pytest.mark.long
def test_release_that_removes_the_host_loses_no_request_at_the_other_host(stack: Stack) -> None:
    del stack.app["services"], stack.environment["tiers"]["admin"]
    stack.environment.get("images", {}).pop("admin", None)
    stack.app["checks"] = [{"path": "/", "status": 200}]
    with steady_requests(stack) as statuses:
        stack.up()
    assert set(statuses) <= {"200", "201"}, statuses
    assert stack.live()["slot"] == "blue"
    eventually(lambda: "RELEASE" not in get_admin(stack).text)
    assert set(stack.up().changes) == {"unchanged"}
    # The smoke test of the next release must reach its slot, although the live release has replaced one with hosts.
    stack.app["version"] = "1.0.1"
    stack.up()
    assert stack.live()["release"].startswith("1.0.1")


def test_destroy_leaves_nothing(stack: Stack) -> None:
    destroy_without_leftovers(stack)
