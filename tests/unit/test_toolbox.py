"""Tests of the commands of the toolbox container (smoke test, switch), with mocks that listen on real sockets."""

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.platforms import toolbox


class Gateway(BaseHTTPRequestHandler):
    """Mock of the gateway, which names the slot of a request in a response header.

    The paths `/broken` and `/hidden` return errors. For `/stuck` the header always names slot blue.
    """

    def do_GET(self) -> None:
        slot = self.headers.get("X-Tiers-Slot", "blue")
        self.send_response({"/broken": 503, "/hidden": 404}.get(self.path, 200))
        if self.path != "/hidden":
            self.send_header("X-Tiers-Slot", "blue" if self.path == "/stuck" else slot)
        self.send_header("x-frame-options", "DENY")
        self.end_headers()
        self.wfile.write(b"<div id=root></div>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def readiness_checks(*paths: str) -> str:
    """Return JSON with one readiness check per path, in the format of the smoke test's argument."""
    return json.dumps([{"name": f"app.api.ready: {path}", "path": path} for path in paths])


def test_smoke_test_passes_when_the_slot_answers_every_path(gateway: str) -> None:
    assert (
        toolbox.smoke(gateway, "board.test", "green", "1", readiness_checks("/health", "/ready"))
        == "green answers /health /ready"
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/broken", "app.api.ready: /broken: HTTP 503"),
        ("/stuck", "app.api.ready: /stuck: answered by blue, not by green"),
    ],
)
def test_smoke_test_fails_with_the_path_of_the_setting_and_the_reason(gateway: str, path: str, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        toolbox.smoke(gateway, "board.test", "green", "0.1", readiness_checks("/health", path))


@pytest.mark.parametrize(
    "check",
    [
        {"path": "/page", "status": 200, "headers": {"X-Frame-Options": "DENY"}, "contains": "<div id=root>"},
        {"path": "/broken", "status": 503},
        {"path": "/hidden", "status": 404},
    ],
)
def test_smoke_test_passes_when_a_check_gets_the_expected_answer(gateway: str, check: dict[str, Any]) -> None:
    message = toolbox.smoke(gateway, "board.test", "green", "0.1", json.dumps([check]))
    assert message == f"green answers {check['path']}"
    assert toolbox.response_problem(gateway, "board.test", "", check) == ""


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"path": "/page", "status": 301}, "app.checks.0: /page: HTTP 200, expected 301"),
        (
            {"path": "/page", "headers": {"X-Frame-Options": "SAMEORIGIN"}},
            "header X-Frame-Options is DENY, expected SAMEORIGIN",
        ),
        (
            {"path": "/page", "headers": {"Referrer-Policy": "no-referrer"}},
            "header Referrer-Policy is missing, expected no-referrer",
        ),
        (
            {"path": "/page", "contains": "<main>"},
            "the body does not contain '<main>', it begins with '<div id=root></div>'",
        ),
        ({"path": "/stuck", "status": 200}, "answered by blue, not by green"),
    ],
)
def test_smoke_test_fails_with_the_expected_and_the_actual_answer(
    gateway: str, check: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        toolbox.smoke(
            gateway, "board.test", "green", "0.1", json.dumps([{"name": f"app.checks.0: {check['path']}", **check}])
        )


def test_smoke_test_sends_the_host_name_over_tls_and_verifies_certificates_of_ip_addresses(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    words = ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=nobody", "-newkey", "ec", "-pkeyopt"]
    words += ["ec_paramgen_curve:P-256", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    names: list[str] = []
    context.sni_callback = lambda _, name, __: names.append(str(name))
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        inside = f"https://127.0.0.1:{server.server_port}"
        assert toolbox.smoke(inside, "board.test", "green", "1", readiness_checks("/health")) == "green answers /health"
        assert names == ["board.test"]
        with pytest.raises(SystemExit, match="certificate verify failed"):
            toolbox.smoke(inside, "127.0.0.1", "green", "0", readiness_checks("/health"))
        server.shutdown()


def test_command_reach_waits_until_every_address_accepts_a_connection(gateway: str) -> None:
    address = gateway.removeprefix("http://")
    assert toolbox.reach("1", address, address) == f"reached {address} {address}"
    with pytest.raises(SystemExit, match=r"127\.0\.0\.1:9 can't be reached"):
        toolbox.reach("0.2", address, "127.0.0.1:9")


def test_smoke_test_fails_when_the_gateway_does_not_answer() -> None:
    with pytest.raises(SystemExit, match="/health: "):
        toolbox.smoke("http://127.0.0.1:9", "board.test", "green", "0.1", readiness_checks("/health"))


class Master:
    """Mock of the sockets of HAProxy with two workers. The mock supports only the commands that the switch uses."""

    def __init__(self, folder: Path, accepts_commands: bool = True, refused_configuration: str = "") -> None:
        """Create the sockets in `folder`.

        Args:
            accepts_commands: True if commands change the maps, False if HAProxy ignores commands.
            refused_configuration: Text of haproxy.cfg with which a reload fails.
        """
        self.folder, self.accepts_commands, self.refused_configuration, self.reloads, self.failed_reloads = (
            folder,
            accepts_commands,
            refused_configuration,
            0,
            0,
        )
        self.loaded: list[str] = []
        self.maps = {"21": {"live": "none"}, "8": {"live": "none"}}
        for name in ("master.sock", "admin.sock"):
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(folder / name))
            server.listen()
            threading.Thread(target=self.serve, args=(server,), daemon=True).start()

    def serve(self, server: socket.socket) -> None:
        while True:
            client, _ = server.accept()
            with client:
                client.sendall(f"{self.answer(client.recv(4096).decode().split())}\n".encode())

    def answer(self, words: list[str]) -> str:
        if words[:2] == ["show", "proc"]:
            rows = "".join(f"{worker} worker 0 0d00h00m01s 2.6\n" for worker in self.maps)
            return f"#<PID> <type>\n1 master 0 [failed: {self.failed_reloads}]\n# workers\n{rows}# programs\n"
        if words == ["show", "servers", "state"]:
            return STATE
        if words == ["reload"]:
            text = (self.folder / "haproxy.cfg").read_text()
            self.loaded += [text] if text != self.refused_configuration else []
            self.failed_reloads = self.failed_reloads + 1 if text == self.refused_configuration else 0
            self.reloads += 1
            self.maps |= (
                {f"3{self.reloads}": {"live": "none"}} if self.accepts_commands and not self.failed_reloads else {}
            )
        if not words[0].startswith("@!"):
            return ""
        entries = self.maps[words[0][2:]]
        if words[1] == "show":
            return "".join(f"0x55 {key} {value}\n" for key, value in entries.items())
        if words[1] == "set" and words[-2] not in entries:
            return "Entry not found."
        if words[1] == "del":
            return "" if entries.pop(words[-1], None) or not self.accepts_commands else "Key not found."
        entries |= {words[-2]: words[-1]} if self.accepts_commands else {}
        return ""


STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_fqdn srv_port srvrecord
3 api-blue 1 api1 172.20.0.3 2 api-blue 5000 -
4 api-green 1 api1 172.20.0.4 2 api-green 5000 -
5 web-green 1 web1 172.20.0.5 2 web-green 8080 -
"""


def configuration_with_api_port(api: int) -> str:
    """Return an HAProxy configuration in which the api of slot green has the port `api`."""
    ports = {"api-blue": 5000, "api-green": api, "web-green": 8080}
    return "\n\n".join(f"backend {name}\n  server-template {name[:3]} 10 {name}:{port}" for name, port in ports.items())


@pytest.fixture
def live(tmp_path: Path) -> str:
    (tmp_path / "live.map").write_text("live none\n")
    (tmp_path / "haproxy.cfg").write_text("as it was")
    return str(tmp_path)


def test_switch_updates_the_map_of_every_gateway_process_and_the_map_file(tmp_path: Path, live: str) -> None:
    gateway = Master(tmp_path)
    assert toolbox.route(live, "1", "live", "green") == "live green"
    assert (tmp_path / "live.map").read_text() == "live green\n"
    assert [entry["live"] for entry in gateway.maps.values()] == ["green", "green"]
    assert toolbox.route(live, "1", "live", "blue") == "live blue"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("live.map")] == ["live.map"]
    assert gateway.reloads == 0


def test_preparing_a_slot_for_a_release_does_not_change_the_live_slot(tmp_path: Path, live: str) -> None:
    gateway = Master(tmp_path)
    for release in ("1.0.0-aa", "2.0.0-bb"):
        assert toolbox.route(live, "1", "green", release, "as it was") == f"green {release}"
        assert (tmp_path / "live.map").read_text() == f"live none\ngreen {release}\n"
        assert [entry["green"] for entry in gateway.maps.values()] == [release, release]
    assert gateway.reloads == 0, "a release with the same routes needs no reload"


def test_suspended_slot_has_no_release_in_the_gateway_map(tmp_path: Path, live: str) -> None:
    gateway = Master(tmp_path)
    toolbox.route(live, "1", "green", "1.0.0-aa", "as it was")
    for _ in range(2):
        toolbox.route(live, "1", "green")
        assert (tmp_path / "live.map").read_text() == "live none\n"
        assert list(gateway.maps.values()) == [{"live": "none"}, {"live": "none"}]
    assert gateway.reloads == 0, "a suspended slot keeps its routes, which needs no reload"


def test_release_with_changed_routes_reloads_the_gateway_without_a_restart(tmp_path: Path, live: str) -> None:
    gateway = Master(tmp_path)
    toolbox.route(live, "1", "green", "1.0.0-aa", "another way")
    assert gateway.reloads == 1
    assert (tmp_path / "haproxy.cfg").read_text() == "another way"
    assert (tmp_path / "servers.state").exists(), "healthy servers stay healthy"


def test_switch_fails_if_the_gateway_ignores_the_command(tmp_path: Path, live: str) -> None:
    Master(tmp_path, accepts_commands=False)
    with pytest.raises(SystemExit, match="did not apply the change in time"):
        toolbox.route(live, "0.2", "live", "green")


def test_switch_fails_if_no_gateway_runs(live: str) -> None:
    with pytest.raises(SystemExit, match="did not apply the change in time"):
        toolbox.route(live, "0.2", "live", "green")


def test_gateway_server_with_a_changed_port_is_left_out_of_the_server_state_file(tmp_path: Path, live: str) -> None:
    Master(tmp_path)
    toolbox.route(live, "1", "green", "1.0.0-aa", configuration_with_api_port(5001))
    lines = (tmp_path / "servers.state").read_text().splitlines()
    assert lines == [line for line in STATE.splitlines() if "api-green" not in line]
    toolbox.route(live, "1", "green", "1.0.0-bb", configuration_with_api_port(5000))
    assert (tmp_path / "servers.state").read_text() == STATE


def test_gateway_configuration_that_the_gateway_refuses_is_rolled_back(tmp_path: Path, live: str) -> None:
    gateway = Master(tmp_path, refused_configuration="a bad one")
    with pytest.raises(SystemExit, match="refuses the configuration"):
        toolbox.route(live, "5", "green", "1.0.0-aa", "a bad one")
    assert (tmp_path / "haproxy.cfg").read_text() == "as it was"
    assert gateway.loaded == ["as it was"], "the previous configuration must be loaded"
    assert not (tmp_path / toolbox.LOADED_CONFIGURATION).exists()


def test_release_loads_the_gateway_configuration_that_a_killed_release_wrote_but_did_not_load(
    tmp_path: Path, live: str
) -> None:
    gateway = Master(tmp_path, refused_configuration="a bad one")
    (tmp_path / toolbox.LOADED_CONFIGURATION).write_text("as it was")
    (tmp_path / "haproxy.cfg").write_text("another way")
    toolbox.route(live, "1", "green", "1.0.0-aa", "another way")
    assert gateway.loaded == ["another way"]
    (tmp_path / toolbox.LOADED_CONFIGURATION).write_text("another way")
    (tmp_path / "haproxy.cfg").write_text("never loaded")
    with pytest.raises(SystemExit):
        toolbox.route(live, "1", "green", "1.0.0-bb", "a bad one")
    assert (tmp_path / "haproxy.cfg").read_text() == "another way", "the last loaded configuration must be restored"


def test_gateway_that_cannot_start_receives_a_valid_configuration(tmp_path: Path, live: str) -> None:
    def start() -> None:
        while (tmp_path / "haproxy.cfg").read_text() != configuration_with_api_port(5000):
            time.sleep(0.05)
        Master(tmp_path)

    threading.Thread(target=start, daemon=True).start()
    toolbox.route(live, "10", "green", "1.0.0-aa", configuration_with_api_port(5000))
    assert (tmp_path / "haproxy.cfg").read_text() == configuration_with_api_port(5000)
