"""Docker's gateway with its real image: changed ports, refused configurations, and hidden paths in the spellings of attackers."""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest

from ci.gateway import mend
from components.checkpoint import SLOT, Checkpoint, Entry
from components.config import load_app, load_environment
from components.paths import covers, normalise
from components.platforms import haproxy
from components.release import Slot
from components.workload import Route

from .gateway import HIDDEN, IMAGE, ContainerError, Gateway, users
from .leftovers import LABEL
from .stack import eventually

API = Route(tier="api", prefixes=("/api",), port=5000, health="/a%20b", hidden=("/metrics",))
WEB = Route(tier="web", prefixes=("/",), port=8000, health="/health", hidden=())
ROUTES = {slot: [API, WEB] for slot in Slot}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Start a gateway with a live release in blue."""
    board = Gateway("gate-e2e-gateway")
    try:
        board.claim(Slot.BLUE, ROUTES)
        board.run(Slot.BLUE, API, WEB)
        board.serves(Slot.BLUE, "api", "web")
        board.switch(Slot.BLUE)
        yield board
    finally:
        board.close()


LONG = [
    b"/" * 5000 + b"metrics",
    b"/." * 3000 + b"/metrics",
    b"/a/.." * 2000 + b"/metrics",
    b"/%/../metrics",
    b"/a/b/c/../../../metrics",
    b"http://localhost//metrics",
]
OPEN = [b"/metrics-of-2026", b"/x/metrics", b"/metrics/../y", b"/METRICS", b"/a%20b", b"/100%", b"/a//b/./c", b"/..a/b"]


def test_hidden_path_is_denied_in_every_spelling_and_its_neighbours_are_not(gateway: Gateway) -> None:
    for port in (gateway.port, gateway.alone):
        for path in (*HIDDEN, *LONG):
            status, body = gateway.ask(path, port)
            assert status in (400, 404) and b"# TYPE" not in body, path[:60]
        for path in OPEN:
            status, body = gateway.ask(path, port)
            assert status == 200, path
            assert json.loads(body)["path"] == path.decode(), "the tier gets what the client sent"
    for path in (b"/a" * 20 + b"/.." * 20 + b"/metrics", b"/metrics#x", b"metrics"):
        assert gateway.ask(path)[0] == 400, path


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
        assert json.loads(gateway.ask(path)[1])["tier"] == f"{tier}-blue", path


@pytest.mark.long
def test_gateway_agrees_with_the_program_on_random_paths(gateway: Gateway) -> None:
    rng = random.Random(20261129)
    pieces = [
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
        path = "/" + "".join(rng.choice(pieces) for _ in range(rng.randrange(10)))
        status, body = gateway.ask(path.encode())
        if status == 400:
            assert path.lower().replace("%2e", ".").count("..") > 8, path
        elif covers("/metrics", path):
            assert status == 404, path
        else:
            tier = "api" if covers("/api", path) else "web"
            assert (status, json.loads(body)["tier"], json.loads(body)["path"]) == (200, f"{tier}-blue", path), (
                normalise(path)
            )


def test_request_id_of_a_client_is_passed_on_only_if_it_is_safe_in_logs(gateway: Gateway) -> None:
    ids = {
        "mine-1": True,
        "a" * 128: True,
        "a" * 129: False,
        'a"b': False,
        "a, b": False,
        "a\\": False,
        "%s": False,
        "\xff": False,
    }
    for name, is_kept in ids.items():
        passed = json.loads(gateway.ask(b"/x", None, f"X-Request-Id: {name}")[1])["id"]
        assert (passed == name) is is_kept, name
        assert is_kept or len(passed) == 36
    gateway.ask(b"/" + b'%22"\\' * 1500, None, 'X-Tiers-Slot: blue"', 'Cookie: tiers-release="\\', "Accept: text/html")
    written: list[dict[str, object]] = []
    eventually(
        lambda: written.append(json.loads(gateway.log()[-1])) or str(written[-1]["path"]).startswith('/%22"\\'), 5
    )
    assert len(str(written[-1]["path"])) == 1024
    for line in gateway.log():
        assert not line.startswith("{") or json.loads(line), line


def test_changed_port_serves_without_a_lost_request_and_back_again(gateway: Gateway) -> None:
    """The saved server state has the old port, which must not be applied to the servers of the new configuration."""
    live, routes = gateway.live(), dict(ROUTES)
    with users(gateway) as seen:
        for port in (5001, 5000, 5001, 5002):
            idle, moved = live.other, replace(API, port=port)
            routes = {live: routes[live], idle: [moved, WEB]}
            gateway.claim(idle, routes)
            gateway.run(idle, moved, WEB)
            gateway.serves(idle, "api", "web")
            gateway.switch(idle)
            live = idle
        gateway.switch(live.other)  # `make back` does the same.
        time.sleep(0.5)
        assert json.loads(gateway.ask(b"/api/x")[1])["tier"] == f"api-{live.other}"
        gateway.switch(live)
    print(dict(seen))
    assert set(seen) == {"200"} and seen["200"] > 200


def test_refused_configuration_is_not_written_to_the_volume(gateway: Gateway) -> None:
    before = gateway.file("haproxy.cfg")
    bad = before.replace("http-request set-path /a%%20b", "http-request set-path /a%20b", 1)
    assert bad != before
    with pytest.raises(ContainerError, match=r"percent|log-format|set-path"):
        gateway.check(bad)
    assert gateway.file("haproxy.cfg") == before


@pytest.mark.long
def test_failed_reload_restores_the_old_file_and_loses_no_request(gateway: Gateway) -> None:
    """The failure comes after the check, as with too little memory: the claim fails at once, and a restart uses the old file."""
    before = gateway.file("haproxy.cfg")
    with users(gateway) as seen, pytest.raises(ContainerError, match="refuses the configuration"):
        gateway.tool("route", haproxy.FOLDER, "60", "green", "1-x", before.replace("frontend gateway", "nonsense"))
    assert set(seen) == {"200"}, seen
    assert gateway.file("haproxy.cfg") == before
    gateway.container.restart(timeout=5)
    eventually(lambda: gateway.ask(b"/api/x")[0] == 200, 20)


@pytest.mark.long
def test_gateway_that_cannot_start_recovers_with_the_next_claim(gateway: Gateway) -> None:
    """An older program left a bad file in the volume, and the gateway was restarted since."""
    text = haproxy.configuration(ROUTES)
    gateway.tool("restore", haproxy.FOLDER, text.replace("/a%%20b", "/a%20b"))
    gateway.container.restart(timeout=5)
    eventually(lambda: gateway.engine.containers.get(gateway.name).attrs["RestartCount"] > 1, 20)
    gateway.claim(Slot.GREEN, ROUTES)
    gateway.run(Slot.GREEN, API, WEB)
    gateway.serves(Slot.GREEN, "api", "web")
    gateway.switch(Slot.GREEN)
    assert gateway.ask(b"/api/x")[0] == 200


@pytest.mark.long
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "not-running"])
def test_bad_file_of_an_older_program_is_rewritten_before_an_update(gateway: Gateway, stopped: bool) -> None:
    """The gateway runs with its loaded configuration, or was restarted and can't start. In both cases the next restart succeeds."""
    good = gateway.file("haproxy.cfg")
    app = load_app({"name": "gate", "version": "1", "web": {"image": "x:1", "port": 8000}})
    environment = load_environment({"platform": "docker", "gateway": {"ports": {}}}, app)
    checkpoint = checkpoint_of(Slot.GREEN)
    assert not mend(app, environment, "e2e", lambda: checkpoint), "a valid file must stay"
    gateway.tool("restore", haproxy.FOLDER, good.replace("/a%%20b", "/a%20b"))
    if stopped:
        gateway.container.restart(timeout=5)
        eventually(lambda: gateway.engine.containers.get(gateway.name).status == "restarting", 30)
    assert mend(app, environment, "e2e", lambda: checkpoint)
    gateway.check(gateway.file("haproxy.cfg"))
    gateway.container.restart(timeout=5)
    eventually(lambda: gateway.ask(b"/api/x")[0] == 200, 20)
    assert not mend(app, environment, "e2e", lambda: checkpoint)


def checkpoint_of(live: Slot) -> Checkpoint:
    """Return the checkpoint of a stack with this live slot."""
    labels = {"tiers.role": "switch", "tiers.switch": "1", "tiers.slot": str(live)}
    switch = {"labels": [{"label": label, "value": value} for label, value in labels.items()]}
    slot = {"version": "1", "digest": str(live), "order": 1, "routes": [asdict(route) for route in ROUTES[live]]}
    return Checkpoint(
        entries=(
            Entry(urn="urn::switch-1", type="docker:index/container:Container", parent="", custom=True, inputs=switch),
            Entry(urn=f"urn::{live}", type=SLOT, parent="", custom=False, inputs=slot),
        )
    )


@pytest.mark.long
def test_real_haproxy_reads_every_value_as_written(gateway: Gateway) -> None:
    """One server checks many values, each in a log format and in a comparison."""
    rng = random.Random(14)
    values = [
        bytes(rng.choice(b"%#'\"\\$ {}()[],;/&|!-aZ0\n\t\xc3\xa9\x7f") for _ in range(rng.randrange(1, 12)))
        for _ in range(150)
    ]
    rules = ["defaults", "  mode http", "  timeout client 5s", "frontend values", "  bind :8080"]
    for number, value in enumerate(values):
        rules += [
            f"  http-request set-header X-Value {haproxy.log_format(value)} if {{ path /{number} }}",
            f"  http-request set-var(txn.same) str(yes) if {{ path /{number} }} {{ hdr(X-Value),hex -m str {value.hex().upper()} }}"
            f" {{ hdr(X-Hex) -m found }}",
            f"  http-request return status 200 content-type text/plain string {number} if {{ path /{number} }}"
            f" {{ url_param(v),url_dec(1) -m str -- {haproxy.word(value)} }}",
            f"  http-request return status 418 content-type text/plain lf-string {haproxy.log_format(value)} if {{ path /{number} }}",
        ]  # fmt: skip
    gateway.check("\n".join([*rules, ""]))
    name = f"{gateway.name}-values"
    container = gateway.engine.containers.run(
        IMAGE, ["sh", "-c", 'printf %s "$CONFIG" > /tmp/h.cfg && exec haproxy -db -f /tmp/h.cfg'], name=name, detach=True,
        environment={"CONFIG": "\n".join([*rules, ""])}, ports={"8080/tcp": ("127.0.0.1", None)}, labels={LABEL: gateway.name},
    )  # fmt: skip
    container.reload()
    port = int(container.ports["8080/tcp"][0]["HostPort"])
    eventually(lambda: gateway.ask(b"/0", port)[0] == 418, 20)
    for number, value in enumerate(values):
        encoded = "".join(f"%{byte:02x}" for byte in value)
        assert gateway.ask(f"/{number}?v={encoded}".encode(), port) == (200, str(number).encode()), value
        assert gateway.ask(f"/{number}".encode(), port) == (418, value), value
