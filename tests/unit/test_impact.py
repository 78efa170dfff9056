"""Tests of the message about the live slot after a failed update.

The message must report the result of a real probe.
"""

from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from components.platforms import impact, toolbox
from components.release.planner import Slot

PATH = "/.gateway/api"


@contextmanager
def gateway(status: int, slot: str = "blue", api: int = 200) -> Generator[str]:
    """Start a mock gateway and yield its URL.

    The mock answers PATH with status code `api`, and all other paths with `status`.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(api if self.path == PATH else status)
            self.send_header("X-Tiers-Slot", self.headers.get("X-Tiers-Slot") or slot)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://shop.localhost:{server.server_port}"
        server.shutdown()


def test_failed_update_reports_that_the_live_slot_was_not_changed_if_the_slot_answers() -> None:
    with gateway(200) as url:
        assert (
            impact.describe(Slot.BLUE, url, [url + PATH], lambda: False)
            == "the live slot was not changed: blue answers 200"
        )


@pytest.mark.parametrize(
    ("status", "slot", "api", "message"),
    [
        (503, "blue", 200, "the live slot (blue) answers 503 at /"),
        (404, "", 200, "the live slot (blue) answers 404 at /"),
        (200, "blue", 500, "the live slot (blue) answers 500 at /.gateway/api"),
        (200, "green", 200, "users get responses from slot green, but slot blue was live"),
    ],
)
def test_failed_update_reports_the_wrong_response_of_the_live_slot(
    status: int, slot: str, api: int, message: str
) -> None:
    with gateway(status, slot, api) as url:
        assert impact.describe(Slot.BLUE, url, [url + PATH], lambda: True) == message


def test_failed_update_reports_the_readiness_of_the_live_slot_if_the_gateway_is_unreachable() -> None:
    with gateway(200) as url:
        pass
    ready = impact.describe(Slot.BLUE, url, [url + PATH], lambda: True)
    assert ready.startswith("the live slot was not changed: blue is ready")
    assert "can't be reached from here" in ready
    assert impact.describe(Slot.BLUE, url, [url + PATH], lambda: False).startswith("the live slot (blue) is not ready")

    def raise_error() -> bool:
        raise RuntimeError("no Docker engine answers")

    assert impact.describe(Slot.BLUE, url, [url + PATH], raise_error).startswith(
        "the live slot (blue) could not be probed"
    )


def test_failed_update_reports_the_host_of_a_service_that_does_not_answer() -> None:
    with gateway(200, api=500) as url:
        own_url = url.replace("shop.", "admin.shop.")
        message = impact.describe(Slot.BLUE, url, [own_url + PATH], lambda: True)
    assert message == f"the live slot (blue) answers 500 at {own_url}{PATH}"


def test_failed_first_release_reports_that_no_slot_was_live() -> None:
    assert impact.describe(None, "http://127.0.0.1:9", [], lambda: True) == "no slot was live before"


@pytest.mark.parametrize(
    ("text", "slot"), [("live green\nblue 1-a\n", "green"), ("live none\n", "none"), ("\n", "none")]
)
def test_live_slot_of_a_stopped_gateway_is_read_from_the_map_file(text: str, slot: str, tmp_path: Path) -> None:
    (tmp_path / "live.map").write_text(text)
    assert toolbox.live(str(tmp_path)) == slot
