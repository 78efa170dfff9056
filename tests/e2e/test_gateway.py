"""Tests of the gateway on Docker with its real image: hidden paths in many spellings, changed ports, refused configurations."""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from components import platforms
from components.config import load_app, load_environment
from components.config.paths import covers, normalise
from components.model.workload import Route
from components.platforms.docker import haproxy
from components.release.checkpoint import SLOT, Checkpoint, Entry
from components.release.content import to_state
from components.release.planner import Slot

from .gateway import HIDDEN, IMAGE, ContainerError, Gateway, user_requests
from .leftovers import LABEL
from .stack import eventually

API = Route(tier="api", prefixes=("/api",), port=5000, health="/a%20b", hidden=("/metrics",))
WEB = Route(tier="web", prefixes=("/",), port=8000, health="/health", hidden=())
ROUTES = {slot: [API, WEB] for slot in Slot}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Start a gateway whose live slot is blue."""
    board = Gateway("gate-e2e-gateway")
    try:
        board.write_routes(Slot.BLUE, ROUTES)
        board.start_tiers(Slot.BLUE, API, WEB)
        board.wait_for_tiers(Slot.BLUE, "api", "web")
        board.switch(Slot.BLUE)
        yield board
    finally:
        board.close()


HIDDEN_LONG = [
    b"/" * 5000 + b"metrics",
    b"/." * 3000 + b"/metrics",
    b"/a/.." * 2000 + b"/metrics",
    b"/%/../metrics",
    b"/a/b/c/../../../metrics",
    b"http://localhost//metrics",
]
NOT_HIDDEN = [
    b"/metrics-of-2026",
    b"/x/metrics",
    b"/metrics/../y",
    b"/METRICS",
    b"/a%20b",
    b"/100%",
    b"/a//b/./c",
    b"/..a/b",
]


def test_hidden_path_is_denied_in_every_spelling_and_similar_paths_are_served(gateway: Gateway) -> None:
    for port in (gateway.port, gateway.api_port):
        for path in (*HIDDEN, *HIDDEN_LONG):
            status, body = gateway.request(path, port)
            assert status in (400, 404) and b"# TYPE" not in body, path[:60]
        for path in NOT_HIDDEN:
            status, body = gateway.request(path, port)
            assert status == 200, path
            assert json.loads(body)["path"] == path.decode(), "the tier must receive the path as the client sent it"
    for path in (b"/a" * 20 + b"/.." * 20 + b"/metrics", b"/metrics#x", b"metrics"):
        assert gateway.request(path)[0] == 400, path


def test_routing_prefix_is_compared_with_the_normalised_path(gateway: Gateway) -> None:
    expected = {
        b"/api": "api",
        b"/api/x": "api",
        b"//api//x": "api",
        b"/%61pi/x": "api",
        b"/x/../api": "api",
        b"/api%2Fx": "api",
    }
    expected |= {b"/apiary": "web", b"/api/../x": "web", b"/x/api": "web", b"/": "web", b"/API": "web"}
    for path, tier in expected.items():
        assert json.loads(gateway.request(path)[1])["tier"] == f"{tier}-blue", path


@pytest.mark.long
def test_gateway_routes_and_hides_random_paths_as_the_python_functions_expect(gateway: Gateway) -> None:
    generator = random.Random(20261129)
    parts = [
        "/",
        "/",
        "//",
        ".",
        "..",
        "/../",
        "/./",
        "%2f",
        "%2e",
        "metrics",
        "/metrics",
        "a",
        "%6d",
        "%",
        "%zz",
        "%25",
        "+",
        ";",
    ]
    for _ in range(500):
        path = "/" + "".join(generator.choice(parts) for _ in range(generator.randrange(10)))
        status, body = gateway.request(path.encode())
        if status == 400:
            assert path.lower().replace("%2e", ".").count("..") > 8, path
        elif covers("/metrics", path):
            assert status == 404, path
        else:
            tier = "api" if covers("/api", path) else "web"
            assert (status, json.loads(body)["tier"], json.loads(body)["path"]) == (200, f"{tier}-blue", path), (
                normalise(path)
            )


def test_request_id_of_a_client_is_kept_only_if_it_is_safe_in_logs(gateway: Gateway) -> None:
    is_kept_by_id = {
        "mine-1": True,
        "a" * 128: True,
        "a" * 129: False,
        'a"b': False,
        "a, b": False,
        "a\\": False,
        "%s": False,
        "\xff": False,
    }
    for client_id, is_kept in is_kept_by_id.items():
        received_id = json.loads(gateway.request(b"/x", None, f"X-Request-Id: {client_id}")[1])["id"]
        assert (received_id == client_id) is is_kept, client_id
        assert is_kept or len(received_id) == 36
    gateway.request(
        b"/" + b'%22"\\' * 1500, None, 'X-Tiers-Slot: blue"', 'Cookie: tiers-release="\\', "Accept: text/html"
    )
    log_entries: list[dict[str, object]] = []
    eventually(
        lambda: (
            log_entries.append(json.loads(gateway.log_lines()[-1]))
            or str(log_entries[-1]["path"]).startswith('/%22"\\')
        ),
        5,
    )
    assert len(str(log_entries[-1]["path"])) == 1024
    for line in gateway.log_lines():
        assert not line.startswith("{") or json.loads(line), line


def test_changed_port_and_rollback_lose_no_request(gateway: Gateway) -> None:
    """Release changed ports of the api, and roll back. HAProxy must not use the old port from its saved server state."""
    live, routes = gateway.live(), dict(ROUTES)
    with user_requests(gateway) as statuses:
        for port in (5001, 5000, 5001, 5002):
            idle, changed_route = live.other, replace(API, port=port)
            routes = {live: routes[live], idle: [changed_route, WEB]}
            gateway.write_routes(idle, routes)
            gateway.start_tiers(idle, changed_route, WEB)
            gateway.wait_for_tiers(idle, "api", "web")
            gateway.switch(idle)
            live = idle
        gateway.switch(live.other)  # Roll back, as `make back` does.
        time.sleep(0.5)
        assert json.loads(gateway.request(b"/api/x")[1])["tier"] == f"api-{live.other}"
        gateway.switch(live)
    print(dict(statuses))
    assert set(statuses) == {"200"} and statuses["200"] > 200


def test_refused_configuration_is_not_written_to_the_volume(gateway: Gateway) -> None:
    before = gateway.read_file("haproxy.cfg")
    invalid = before.replace("http-request set-path /a%%20b", "http-request set-path /a%20b", 1)
    assert invalid != before
    with pytest.raises(ContainerError, match=r"percent|log-format|set-path"):
        gateway.check(invalid)
    assert gateway.read_file("haproxy.cfg") == before


@pytest.mark.long
def test_failed_reload_restores_the_old_file_and_loses_no_request(gateway: Gateway) -> None:
    """Reload an invalid file, so that the reload fails.

    A release checks the file before the reload. But even the reload of a valid file can fail, for example if memory is short.
    """
    before = gateway.read_file("haproxy.cfg")
    with user_requests(gateway) as statuses, pytest.raises(ContainerError, match="refuses the configuration"):
        gateway.run_toolbox(
            "route", haproxy.FOLDER, "60", "green", "1-x", before.replace("frontend gateway", "nonsense")
        )
    assert set(statuses) == {"200"}, statuses
    assert gateway.read_file("haproxy.cfg") == before
    gateway.container.restart(timeout=5)
    eventually(lambda: gateway.request(b"/api/x")[0] == 200, 20)


@pytest.mark.long
def test_gateway_that_cannot_start_recovers_with_the_next_release(gateway: Gateway) -> None:
    """Restart the gateway with a file that HAProxy refuses. The first step of a release (`claim`) must replace this file."""
    text = haproxy.configuration(ROUTES, url="http://127.0.0.1:8080")
    gateway.run_toolbox("restore", haproxy.FOLDER, text.replace("/a%%20b", "/a%20b"))
    gateway.container.restart(timeout=5)
    eventually(lambda: gateway.engine.containers.get(gateway.name).attrs["RestartCount"] > 1, 20)
    gateway.write_routes(Slot.GREEN, ROUTES)
    gateway.start_tiers(Slot.GREEN, API, WEB)
    gateway.wait_for_tiers(Slot.GREEN, "api", "web")
    gateway.switch(Slot.GREEN)
    assert gateway.request(b"/api/x")[0] == 200


@pytest.mark.long
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "failed-restart"])
def test_invalid_file_of_an_older_program_is_rewritten_before_an_update(gateway: Gateway, restarted: bool) -> None:
    """Let the program rewrite an invalid file, and check that the gateway starts with the rewritten file.

    If `restarted` is True, the gateway has failed to restart with the invalid file. Otherwise the gateway still runs.
    """
    valid = gateway.read_file("haproxy.cfg")
    app = load_app({"name": "gate", "version": "1", "web": {"image": "x:1", "port": 8000}})
    environment = load_environment({"platform": "docker", "gateway": {"ports": {}}}, app)
    checkpoint, inspector = checkpoint_with_live_slot(Slot.GREEN), platforms.inspector(app, environment, "e2e")
    assert not inspector.repair_gateway(environment, lambda: checkpoint), "a valid file must not be rewritten"
    gateway.run_toolbox("restore", haproxy.FOLDER, valid.replace("/a%%20b", "/a%20b"))
    if restarted:
        gateway.container.restart(timeout=5)
        eventually(lambda: gateway.engine.containers.get(gateway.name).status == "restarting", 30)
    assert inspector.repair_gateway(environment, lambda: checkpoint)
    gateway.check(gateway.read_file("haproxy.cfg"))
    gateway.container.restart(timeout=5)
    eventually(lambda: gateway.request(b"/api/x")[0] == 200, 20)
    assert not inspector.repair_gateway(environment, lambda: checkpoint)


def checkpoint_with_live_slot(live: Slot) -> Checkpoint:
    """Return the checkpoint of a stack whose live slot is `live`."""
    labels = {"tiers.role": "switch", "tiers.switch": "1", "tiers.slot": str(live)}
    switch = {"labels": [{"label": label, "value": value} for label, value in labels.items()]}
    slot = {"version": "1", "digest": str(live), "order": 1, "routes": [to_state(route) for route in ROUTES[live]]}
    return Checkpoint(
        entries=(
            Entry(urn="urn::switch-1", type="docker:index/container:Container", parent="", custom=True, inputs=switch),
            Entry(urn=f"urn::{live}", type=SLOT, parent="", custom=False, inputs=slot),
        )
    )


@pytest.mark.long
def test_real_haproxy_reads_every_value_as_written(gateway: Gateway) -> None:
    """Check that HAProxy reads random values as the program wrote them. Each value is used as a log format and in a comparison."""
    generator = random.Random(14)
    values = [
        bytes(generator.choice(b"%#'\"\\$ {}()[],;/&|!-aZ0\n\t\xc3\xa9\x7f") for _ in range(generator.randrange(1, 12)))
        for _ in range(150)
    ]
    rules = ["defaults", "  mode http", "  timeout client 5s", "frontend values", "  bind :8080"]
    for number, value in enumerate(values):
        rules += [
            f"  http-request set-header X-Value {haproxy.quote_log_format(value)} if {{ path /{number} }}",
            f"  http-request set-var(txn.same) str(yes) if {{ path /{number} }} {{ hdr(X-Value),hex -m str {value.hex().upper()} }}"
            f" {{ hdr(X-Hex) -m found }}",
            f"  http-request return status 200 content-type text/plain string {number} if {{ path /{number} }}"
            f" {{ url_param(v),url_dec(1) -m str -- {haproxy.quote(value)} }}",
            f"  http-request return status 418 content-type text/plain lf-string {haproxy.quote_log_format(value)} if {{ path /{number} }}",
        ]  # fmt: skip
    gateway.check("\n".join([*rules, ""]))
    name = f"{gateway.name}-values"
    container = gateway.engine.containers.run(
        IMAGE, ["sh", "-c", 'printf %s "$CONFIG" > /tmp/h.cfg && exec haproxy -db -f /tmp/h.cfg'], name=name, detach=True,
        environment={"CONFIG": "\n".join([*rules, ""])}, ports={"8080/tcp": ("127.0.0.1", None)}, labels={LABEL: gateway.name},
    )  # fmt: skip
    container.reload()
    port = int(container.ports["8080/tcp"][0]["HostPort"])
    eventually(lambda: gateway.request(b"/0", port)[0] == 418, 20)
    for number, value in enumerate(values):
        encoded = "".join(f"%{byte:02x}" for byte in value)
        assert gateway.request(f"/{number}?v={encoded}".encode(), port) == (200, str(number).encode()), value
        assert gateway.request(f"/{number}".encode(), port) == (418, value), value
