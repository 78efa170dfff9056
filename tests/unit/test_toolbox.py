"""What runs inside the toolbox container: the smoke test and the switch, against real sockets."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.platforms import toolbox


class Gateway(BaseHTTPRequestHandler):
    """Answers as the real one does: says which slot served, and knows one that is broken."""

    def do_GET(self) -> None:
        asked = self.headers.get("X-Tiers-Slot", "blue")
        self.send_response(503 if self.path == "/broken" else 200)
        self.send_header("X-Tiers-Slot", "blue" if self.path == "/stuck" else asked)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_smoke_passes_when_the_slot_answers_every_path(gateway: str) -> None:
    assert toolbox.smoke(gateway, "green", "1", "/health", "/ready") == "green answers /health /ready"


@pytest.mark.parametrize(
    ("path", "said"), [("/broken", "/broken: HTTP 503"), ("/stuck", "/stuck: answered by blue, not by green")]
)
def test_smoke_fails_with_the_path_and_the_reason(gateway: str, path: str, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        toolbox.smoke(gateway, "green", "0.1", "/health", path)


def test_smoke_fails_when_nothing_answers() -> None:
    with pytest.raises(SystemExit, match="/health: "):
        toolbox.smoke("http://127.0.0.1:9", "green", "0.1", "/health")


def serve_admin(folder: Path, takes: bool) -> None:
    """A socket that speaks as much of HAProxy's runtime interface as the switch does."""
    live = ["none"]
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "admin.sock"))
    server.listen()

    def answer() -> None:
        while True:
            client, _ = server.accept()
            with client:
                words = client.recv(4096).decode().split()
                if words[0] == "set" and takes:
                    live[0] = words[-1]
                client.sendall(b"\n" if words[0] == "set" else f"0x55 live {live[0]}\n\n".encode())

    threading.Thread(target=answer, daemon=True).start()


def test_the_switch_moves_the_running_map_and_the_file(tmp_path: Path) -> None:
    serve_admin(tmp_path, takes=True)
    assert toolbox.switch(str(tmp_path), "green", "1") == "live green"
    assert (tmp_path / "live.map").read_text() == "live green\n"
    assert toolbox.switch(str(tmp_path), "blue", "1") == "live blue"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("live.map")] == ["live.map"]


def test_a_gateway_that_does_not_take_the_switch_fails_it(tmp_path: Path) -> None:
    serve_admin(tmp_path, takes=False)
    with pytest.raises(SystemExit, match="did not take the switch"):
        toolbox.switch(str(tmp_path), "green", "0.2")


def test_a_gateway_that_is_not_there_fails_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="did not take the switch"):
        toolbox.switch(str(tmp_path), "green", "0.2")
