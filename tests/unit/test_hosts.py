"""Tests of services with a host of their own (`host`): which service answers a request, at which host, on both platforms.

The tests apply the rendered rules to requests as HAProxy and a Gateway do.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci import deploy as update
from ci import url_check
from ci.check import Live
from ci.ephemeral import pr_settings
from ci.make_call import Call
from components import platforms
from components.config import App, ConfigError, load_app, load_environment
from components.config.paths import normalise
from components.model.workload import Route
from components.platforms import readiness, toolbox
from components.platforms.docker import haproxy
from components.platforms.gateway import smoke_checks
from components.platforms.kubernetes.routes import HTTP_ROUTE
from components.release import content
from components.release.checkpoint import parse
from components.release.planner import Slot
from components.rendering import render_routes

from . import invariants, test_kubernetes, test_reachability
from .program import Deployment, checkpoint_of, deploy, environment, preview_output, project
from .test_reachability import Network

STACKS = ("dev", "staging")
IMAGE: Mapping[str, Any] = {"image": "me/x:1", "port": 9000}
SERVICES: Mapping[str, Any] = {
    "admin": {"tier": "web", **IMAGE, "host": "admin", "needs": ["api"]},
    "backoffice": {"tier": "api", **IMAGE, "host": "admin", "paths": ["/api"]},
    "feed": {"tier": "api", **IMAGE, "paths": ["/feed"]},
    "streaming": {"tier": "api", **IMAGE, "host": "live", "paths": ["/v1", "/feed"]},
}
APP_HOST = {"dev": "127.0.0.1", "staging": "board-staging.localhost"}
DOMAIN = {"dev": "localhost", "staging": "board-staging.localhost"}
EXPECTED = {
    "": {"/": "web", "/x": "web", "/api": "api", "/api/x": "api", "/feed/1": "feed", "/v1/x": "web", "/metrics": "hidden"},
    "admin": {"/": "admin", "/x": "admin", "/api/x": "backoffice", "/feed": "admin", "/v1": "admin", "/metrics/x": "hidden"},
    "live": {"/": None, "/x": None, "/api": None, "/feed/1": "streaming", "/v1/x": "streaming", "/metrics": "hidden"},
}  # fmt: skip
"""Host name → path → service that answers, for SERVICES. None: no service."""


def described(**services: Any) -> dict[str, Any]:
    return project() | {"services": {**SERVICES, **services}}


def settings(stack: str, **changes: Any) -> dict[str, Any]:
    env = environment(stack) | changes
    if stack == "staging":
        env["release"] = {"standby": "cold"}  # An HTTPRoute has too few rules for six services with a warm standby.
    return env


def host_of(name: str, stack: str) -> str:
    return f"{name}.{DOMAIN[stack]}" if name else APP_HOST[stack]


@cache
def deployed(stack: str) -> Deployment:
    return deploy(described(), settings(stack), stack=stack)


def load(**services: Any) -> App:
    return load_app(described(**services))


# ---------------------------------------------------------------------- Docker


def first_backend(text: str, slot: str, host: str, path: str) -> str | None:
    """Return the service to which the rules of HAProxy send a request without a slot header; `no-path` if no service gets it."""
    values = {"txn.slot": slot, "txn.host": host.lower().partition(":")[0], "txn.normal": normalise(path).decode()}

    def is_true(negation: str, variable: str, method: str, arguments: str) -> bool:
        value, patterns = values.get(variable, ""), arguments.removeprefix("-- ").split()
        result = value in patterns if method == "str" else any(value.startswith(pattern) for pattern in patterns)
        return result is not bool(negation)

    for line in text.splitlines():
        action, _, condition = line.strip().partition(" if ")
        conditions = re.findall(r"(!?)\{ var\(([a-z.]+)\) -m (str|beg) ([^}]*?) \}", condition)
        if conditions and all(is_true(*parts) for parts in conditions):
            if action == "http-request deny deny_status 404":
                return "hidden"
            if action.startswith("use_backend "):
                name = action.removeprefix("use_backend ")
                return name.removesuffix(f"-{slot}")
    return None


def docker_configuration(app: App, **changes: Any) -> str:
    env = load_environment(settings("dev", **changes), app)
    return haproxy.stack_configuration(dict.fromkeys(Slot, render_routes(app, env)), env)


@pytest.mark.parametrize("slot", list(Slot))
@pytest.mark.parametrize(
    ("name", "path", "service"), [(n, p, s) for n, rows in EXPECTED.items() for p, s in rows.items()]
)
def test_haproxy_sends_a_request_to_the_service_of_its_host_and_path(
    slot: str, name: str, path: str, service: str | None
) -> None:
    assert first_backend(docker_configuration(load()), slot, f"{host_of(name, 'dev')}:8080", path) == (
        service or "no-path"
    )


def test_haproxy_sends_requests_with_an_unknown_host_to_the_services_of_the_application() -> None:
    text = docker_configuration(load())
    for host in ("", "localhost", "other.localhost", "xadmin.localhost", "admin.localhost.evil.test", "10.0.0.1"):
        assert first_backend(text, "blue", host, "/x") == "web", host
        assert first_backend(text, "blue", host, "/api/x") == "api", host


def test_haproxy_compares_a_host_without_its_port_and_in_any_case() -> None:
    text = docker_configuration(load())
    assert "http-request set-var(txn.host) req.hdr(Host),field(1,:),lower" in text
    assert first_backend(text, "blue", "Admin.LOCALHOST:80", "/") == "admin"


def test_haproxy_knows_the_host_of_a_service_only_in_slots_with_this_service() -> None:
    env = load_environment(settings("dev"), load())
    without = render_routes(load_app(project()), env)
    text = haproxy.stack_configuration({Slot.BLUE: without, Slot.GREEN: render_routes(load(), env)}, env)
    assert first_backend(text, "blue", "admin.localhost", "/") == "web"
    assert first_backend(text, "green", "admin.localhost", "/") == "admin"


def test_haproxy_health_check_requests_the_host_of_the_service() -> None:
    text = docker_configuration(load())
    for service, host in (
        ("web", "127.0.0.1:8080"),
        ("admin", "admin.localhost:8080"),
        ("streaming", "live.localhost:8080"),
    ):
        block = text.split(f"backend {service}-green\n")[1].split("\n\n")[0]
        assert f"ver HTTP/1.1 hdr Host {host} " in block


def test_haproxy_configuration_without_own_hosts_compares_no_host() -> None:
    text = docker_configuration(load_app(project()))
    assert "txn.host" not in text and "no-path" not in text


# ---------------------------------------------------------------------- Kubernetes


def match_rank(match: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the rank of a match by the precedence of the Gateway API: exact path, length of the path, number of headers."""
    path = match["path"]
    return path["type"] == "Exact", len(path["value"]), len(match.get("headers", ()))


def matches(match: Mapping[str, Any], headers: Mapping[str, str], path: str) -> bool:
    kind, value = match["path"]["type"], match["path"]["value"]
    has_path = {
        "Exact": path == value,
        "PathPrefix": normalise(path).startswith(normalise(value)),
        "RegularExpression": re.search(value, path) is not None,
    }[kind]
    return has_path and all(
        (re.search(entry["value"], headers.get(entry["name"], "")) is not None)
        if entry["type"] == "RegularExpression"
        else headers.get(entry["name"]) == entry["value"]
        for entry in match.get("headers", ())
    )


def answering(
    http_routes: Iterable[Mapping[str, Any]], host: str, path: str, headers: Mapping[str, str] | None = None
) -> str | None:
    """Return the backend that a Gateway chooses for a request; None if no rule matches, `hidden` for a hidden path."""
    name = host.lower().partition(":")[0]
    sent = {"Accept": "*/*", "Host": host, "X-Forwarded-Host": host, **(headers or {})}
    found = [
        (match_rank(match), rule)
        for route in http_routes
        if name in route["hostnames"]
        for rule in route["rules"]
        for match in rule["matches"]
        if matches(match, sent, path)
    ]
    if not found:
        return None
    best = max(rank for rank, _ in found)
    rule = next(rule for rank, rule in found if rank == best)
    is_hidden = any(
        entry.get("urlRewrite", {}).get("path", {}).get("replaceFullPath") == "/.hidden"
        for entry in rule.get("filters", ())
    )
    return "hidden" if is_hidden else rule["backendRefs"][0]["name"]


def specs(deployment: Deployment) -> list[Mapping[str, Any]]:
    """Return the specs of all HTTPRoutes. The route of the live slot is the oldest, so it comes first."""
    names = {entry.name: entry.inputs["spec"] for entry in deployment.of_type(HTTP_ROUTE)}
    return [names[name] for name in sorted(names)]


@pytest.mark.parametrize(
    ("name", "path", "service"), [(n, p, s) for n, rows in EXPECTED.items() for p, s in rows.items()]
)
@pytest.mark.parametrize("slot_header", [{}, {"X-Tiers-Slot": "blue"}], ids=["users", "slot-header"])
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_http_routes_send_a_request_to_the_service_of_its_host_and_path(
    name: str, path: str, service: str | None, slot_header: dict[str, str], accept: str
) -> None:
    host = f"{host_of(name, 'staging')}:8000"
    answer = answering(specs(deployed("staging")), host, path, slot_header | {"Accept": accept})
    assert answer == (f"{service}-blue" if service not in (None, "hidden") else service)


def test_one_http_route_has_the_rules_of_all_hosts() -> None:
    [live] = [entry for entry in deployed("staging").of_type(HTTP_ROUTE) if entry.labels["tiers.role"] == "switch"]
    hosts = ["board-staging.localhost", "admin.board-staging.localhost", "live.board-staging.localhost"]
    assert live.inputs["spec"]["hostnames"] == hosts
    assert len(deployed("staging").of_type(HTTP_ROUTE)) == 2, "the live route, and the route of the slot"


def test_hosts_of_the_application_include_wildcards() -> None:
    env = settings("staging")
    env["kubernetes"]["hostnames"] = ["*.shop.test"]
    deployment = deploy(described(), env, stack="staging")
    [header] = next(
        match["headers"]
        for rule in specs(deployment)[0]["rules"]
        for match in rule["matches"]
        if rule["backendRefs"][0]["name"] == "web-blue" and len(match.get("headers", ())) == 1
    )
    assert (header["name"], header["type"]) == ("Host", "RegularExpression")
    for host, is_included in {
        "a.shop.test": True, "a.b.shop.test:443": True, "Board-Staging.localhost": True, "shop.test": False,
        "admin.board-staging.localhost": False, "board-stagingxlocalhost": False, "board-staging.localhost.evil.test": False,
    }.items():  # fmt: skip
        assert (re.search(header["value"], host) is not None) is is_included, host


def test_http_routes_compare_the_header_that_the_gateway_can_read() -> None:
    env = settings("staging")
    env["kubernetes"]["gateway"]["host_header"] = "X-Forwarded-Host"
    deployment = deploy(described(), env, stack="staging")
    headers = {
        entry["name"]
        for spec in specs(deployment)
        for rule in spec["rules"]
        for match in rule["matches"]
        for entry in match.get("headers", ())
    }
    assert "X-Forwarded-Host" in headers and "Host" not in headers
    assert deployment.release != deployed("staging").release


def test_http_routes_without_own_hosts_compare_no_host_and_ignore_the_setting() -> None:
    env = settings("staging")
    before = deploy(env=env, stack="staging")
    env["kubernetes"]["gateway"]["host_header"] = "X-Forwarded-Host"
    after = deploy(env=env, stack="staging")
    assert before.release == after.release
    assert specs(before) == specs(after)
    assert "Host" not in json.dumps(specs(after)).replace("X-Forwarded-Host", "Host").replace("hostnames", "")


@pytest.mark.parametrize(
    "releases",
    [(project(), described()), (described(), project()), (described(), project(), project() | {"version": "2"})],
    ids=["added", "removed", "after-removal"],
)
def test_slot_header_selects_the_new_release_if_a_release_adds_or_removes_a_host(
    releases: tuple[dict[str, Any], ...],
) -> None:
    """Check the rules of both slots together, because a Gateway prefers the rule with more header matches."""
    first, *others, last = releases
    before = deploy(first, settings("staging"), stack="staging")
    for app in others:
        before = deploy(app, settings("staging"), stack="staging", export=checkpoint_of(before))
    [live] = [entry for entry in before.of_type(HTTP_ROUTE) if entry.labels.get("tiers.role") == "switch"]
    after = deploy(last, settings("staging"), stack="staging", export=checkpoint_of(before))
    idle = "green" if live.labels["tiers.slot"] == "blue" else "blue"
    [slot] = [
        entry
        for entry in after.of_type(HTTP_ROUTE)
        if entry.labels.get("tiers.role") == "preview" and entry.labels["tiers.slot"] == idle
    ]
    routes, host = [live.inputs["spec"], slot.inputs["spec"]], APP_HOST["staging"]
    for path, service in {"/x": "web", "/api/x": "api"}.items():
        assert answering(routes, host, path, {"X-Tiers-Slot": idle}) == f"{service}-{idle}"
        assert answering(routes, host, path) == f"{service}-{live.labels['tiers.slot']}"


def test_own_gateway_has_a_listener_for_each_host() -> None:
    env = settings("staging")
    del env["kubernetes"]["gateway"]["listener"]
    env["kubernetes"]["gateway"]["create"] = {"gateway_class": "traefik"}
    [gateway] = deploy(described(), env, stack="staging").of_type("Gateway")
    hostnames = {entry["name"]: entry["hostname"] for entry in gateway.inputs["spec"]["listeners"]}
    assert hostnames == {
        "http-0": "board-staging.localhost",
        "http-1": "admin.board-staging.localhost",
        "http-2": "live.board-staging.localhost",
    }


# ---------------------------------------------------------------------- both platforms


def test_objects_of_services_with_hosts_satisfy_every_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    for assert_invariant, entry in invariants.cases(deployed("dev")):
        assert_invariant(entry)
    test_kubernetes.assert_every_invariant(deployed("staging"), monkeypatch)
    test_reachability.lets_no_stray_pod_connect(Network(deployed("staging")))


@pytest.mark.parametrize("stack", STACKS)
def test_second_update_with_hosts_changes_nothing(stack: str) -> None:
    before = checkpoint_of(deployed(stack))
    again = deploy(described(), settings(stack), stack=stack, export=before)
    assert {step["op"] for step in preview_output(before, again)["steps"]} == {"same"}


@pytest.mark.parametrize("stack", STACKS)
def test_changed_host_makes_a_new_release(stack: str) -> None:
    assert (
        deploy(described(), settings(stack, hosts={"admin": "a.test"}), stack=stack).release != deployed(stack).release
    )


@pytest.mark.parametrize("stack", STACKS)
def test_address_of_each_host_is_a_stack_output(stack: str) -> None:
    port = {"dev": 8080, "staging": 8000}[stack]
    assert deployed(stack).outputs["url"] == f"http://{APP_HOST[stack]}:{port}"
    assert deployed(stack).outputs["urls"] == {
        service: f"http://{host_of(name, stack)}:{port}"
        for service, name in {"admin": "admin", "backoffice": "admin", "streaming": "live"}.items()
    }
    assert "urls" not in deploy(env=settings(stack), stack=stack).outputs


@pytest.mark.parametrize("stack", STACKS)
def test_every_service_receives_all_public_addresses(stack: str) -> None:
    app = load()
    env = load_environment(settings(stack), app)
    deployment = deployed(stack)
    addresses = {
        "PUBLIC_URL": env.url,
        "ADMIN_PUBLIC_URL": env.urls(app)["admin"],
        "STREAMING_PUBLIC_URL": env.urls(app)["streaming"],
    }
    for name in app.slot_services:
        assert addresses.items() <= variables(deployment, name, stack).items(), name
        assert "FEED_PUBLIC_URL" not in variables(deployment, name, stack)


def variables(deployment: Deployment, service: str, stack: str) -> dict[str, str]:
    if stack == "dev":
        return dict(entry.split("=", 1) for entry in deployment.by_name[f"blue-{service}-1"].inputs["envs"])
    [container] = deployment.get_object("Deployment", f"{service}-blue").inputs["spec"]["template"]["spec"][
        "containers"
    ]
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


@pytest.mark.parametrize("stack", STACKS)
def test_health_checks_send_the_host_of_the_service_unless_it_names_another(stack: str) -> None:
    app = described(streaming=SERVICES["streaming"] | {"health_host": "internal.test"})
    deployment = deploy(app, settings(stack), stack=stack)
    port = {"dev": 8080, "staging": 8000}[stack]
    for service, host in (("admin", f"{host_of('admin', stack)}:{port}"), ("streaming", "internal.test")):
        if stack == "dev":
            assert f"Host: {host}" in deployment.by_name[f"blue-{service}-1"].inputs["healthcheck"]["tests"]
        else:
            [container] = deployment.get_object("Deployment", f"{service}-blue").inputs["spec"]["template"]["spec"][
                "containers"
            ]
            assert {"name": "Host", "value": host} in container["startupProbe"]["httpGet"]["httpHeaders"]


@pytest.mark.parametrize("stack", STACKS)
def test_smoke_test_requests_each_service_at_its_host(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = load_app(described() | {"checks": [{"path": "/x"}]})
    requests = smoke_checks(app, render_routes(app, load_environment(settings(stack), app)))
    sent: dict[str, str] = {}
    monkeypatch.setattr(toolbox, "response_problem", lambda _, host, __, request: sent.update({request["path"]: host}))  # pyright: ignore
    toolbox.smoke("http://gateway:8080", "main.test", "blue", "1", requests)
    expected = {f"/.gateway/{name}": host_of(host, stack) for name, host in app.hosts.items()}
    assert sent == {f"/.gateway/{name}": "main.test" for name in ("web", "api", "feed")} | expected | {
        "/x": "main.test"
    }


def test_readiness_path_of_a_service_answers_at_its_host_only() -> None:
    app = load()
    [admin] = [route for route in render_routes(app, load_environment(settings("dev"), app)) if route.tier == "admin"]
    rule = next(line for line in docker_configuration(app).splitlines() if f"path {readiness(admin)} " in line)
    assert rule.endswith(" { var(txn.slot) -m str blue } { var(txn.host) -m str admin.localhost }")
    routes, header = specs(deployed("staging")), {"X-Tiers-Slot": "blue"}
    assert answering(routes, host_of("admin", "staging"), readiness(admin), header) == "admin-blue"
    assert answering(routes, APP_HOST["staging"], readiness(admin), header) == "web-blue"


def test_address_of_a_route_has_the_host_of_the_service() -> None:
    route = Route(tier="admin", prefixes=("/",), port=80, health="/", host="admin.test")
    assert platforms.route_url("https://shop.test:8443", route) == "https://admin.test:8443"
    assert (
        platforms.route_url("http://127.0.0.1:8080", Route(tier="web", prefixes=("/",), port=80, health="/"))
        == "http://127.0.0.1:8080"
    )


def test_make_up_requests_and_prints_the_address_of_each_host(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requested: list[str] = []

    def get(url: str, path: str) -> url_check.Response:
        requested.append(url + path)
        return url_check.Response(status=200, size=2)

    outputs = json.dumps({key: deployed("dev").outputs[key] for key in ("url", "urls")} | {"release": "1-a"})
    monkeypatch.setattr(update, "pulumi", lambda *_: outputs)
    monkeypatch.setattr(update, "load", lambda _: (load(), None))
    monkeypatch.setattr(url_check, "get", get)
    update._print_address(Call(target="up", values={"ENV": "dev", "APP": "."}))  # pyright: ignore[reportPrivateUsage]
    admin, live = "http://admin.localhost:8080", "http://live.localhost:8080"
    assert requested[-3:] == [f"{admin}/", f"{admin}/api", f"{live}/v1"]
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["admin", admin] in printed and ["backoffice", admin] in printed and ["streaming", live] in printed


@pytest.mark.parametrize("stack", STACKS)
def test_make_check_requests_each_service_at_its_host(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = load()
    env = load_environment(settings(stack), app)
    live = Live(app=app, environment=env, stack=stack, slot=Slot.BLUE, url=env.url, checkpoint_state=parse({}))
    sent: dict[str, str] = {}
    monkeypatch.setattr(toolbox, "response_problem", lambda _, host, __, request: sent.update({request["path"]: host}))  # pyright: ignore
    for name in ("web", "admin", "streaming"):
        live.ready(name)
    port = {"dev": 8080, "staging": 8000}[stack]
    hosts = {"web": "", "admin": "admin", "streaming": "live"}
    assert sent == {f"/.gateway/{name}": f"{host_of(host, stack)}:{port}" for name, host in hosts.items()}


def test_route_without_a_host_of_its_own_is_stored_as_in_earlier_versions() -> None:
    app = load_app(project())
    for stack in STACKS:
        for route in render_routes(app, load_environment(environment(stack), app)):
            assert "host" not in content.to_state(route)


# ---------------------------------------------------------------------- templates


def test_template_inserts_the_public_address_of_a_service() -> None:
    app = described(
        admin=SERVICES["admin"] | {"secret_env": {"OWN": "${admin.public_url}/x ${admin.public_host}", "MAIN": "${public.url}"}},
        mailpit={
            "tier": "store", "image": "mailpit:1", "port": 8025, "health": "/", "secret_env": {"ROOT": "${streaming.public_url}"},
        },
    )  # fmt: skip
    entries = [entry for entry in deploy(app, settings("dev")) if "uploads" in entry.inputs]
    files = {upload["file"]: upload["content"] for entry in entries for upload in entry.inputs["uploads"]}
    assert files["/run/secrets/.env/OWN"] == "http://admin.localhost:8080/x admin.localhost"
    assert files["/run/secrets/.env/MAIN"] == "http://127.0.0.1:8080"
    assert files["/run/secrets/.env/ROOT"] == "http://live.localhost:8080"


# ---------------------------------------------------------------------- defaults and refusals


@given(
    st.sampled_from(["admin", "live"]),
    st.sampled_from(["https://shop.test", "https://www.shop.test:8443", "http://a.b.c.test"]),
)
def test_default_host_is_the_name_before_the_host_of_the_application(name: str, url: str) -> None:
    env = settings("staging")
    env["kubernetes"]["url"] = url
    loaded = load_environment(env, load())
    scheme, _, rest = url.partition("://")
    assert loaded.url_of(name) == f"{scheme}://{name}.{rest}"


def test_environment_replaces_the_host() -> None:
    env = load_environment(settings("staging", hosts={"live": "streaming.example.com"}), load())
    assert env.urls(load()) == {
        "admin": "http://admin.board-staging.localhost:8000",
        "backoffice": "http://admin.board-staging.localhost:8000",
        "streaming": "http://streaming.example.com:8000",
    }


def test_api_with_a_host_may_get_all_paths_beside_web() -> None:
    app = project()
    app["api"]["host"] = "api"
    app["visits"] = ["/"]
    assert load_app(app).routes == {"api": ("/",), "web": ("/",)}
    app["api"]["paths"] = ["/v1"]
    assert load_app(app).routes == {"api": ("/v1",), "web": ("/",)}


def test_host_of_the_api_without_web_keeps_its_paths() -> None:
    app = {"name": "shop", "version": "1", "api": {**IMAGE, "host": "api", "paths": ["/v1"]}}
    site = {"tier": "web", **IMAGE, "paths": ["/"]}
    assert load_app(app | {"services": {"site": site}}).routes == {"api": ("/v1",), "site": ("/",)}


WEB = {"tier": "web", **IMAGE}
APP_REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"two": WEB | {"host": "admin"}}, "app.services.two.paths.0: app.services.admin.paths.0 already has the path / at the host admin; use another prefix"),
    ({"two": WEB | {"host": "admin", "paths": ["/api/"]}},
     "app.services.two.paths.0: app.services.backoffice.paths.0 already has the path /api/ at the host admin"),
    ({"two": WEB | {"paths": ["/"]}}, "app.services.two.paths.0: / routes all requests to two, so none reach web; use a longer prefix, such as /api, or set `host`"),
    ({"two": WEB | {"host": "two", "paths": []}}, "app.services.two: `host` has no effect with `paths: []`; remove `paths`, or remove `host`"),
    ({"two": WEB | {"host": "Two"}}, "app.services.two.host: 'Two' is not a name"),
    ({"two": WEB | {"host": "two", "paths": ["/.gateway/x"]}}, "app.services.two.paths.0: the gateway itself answers /.gateway"),
    ({"two": WEB | {"host": "two", "paths": ["/metrics/x"]}}, "app.api.metrics: the gateway answers 404 to /metrics and all paths below it, but app.services.two.paths.0 needs"),
    ({"two": WEB | {"host": "two", "metrics": "/v1"}}, "app.services.two.metrics: the gateway answers 404 to /v1 and all paths below it, but app.services.streaming.paths.0"),
    ({"two": {"tier": "worker", "image": "x:1", "host": "two"}}, "app.services.two.host: a worker has no host"),
    ({"two": WEB | {"env": {"ADMIN_PUBLIC_URL": "x"}}}, "app.services.two.env.ADMIN_PUBLIC_URL: the program sets this variable"),
    ({"admin-public": WEB | {"paths": ["/p"]}}, "app.services.admin-public: the variable ADMIN_PUBLIC_URL is the public address of admin; use another name"),
    ({"two": WEB | {"secret_env": {"A": "${feed.public_url}"}}}, "app.services.two.secret_env.A: ${feed.public_url} is a value of feed, but two does not need feed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("services", "message"), APP_REFUSALS, ids=[line.partition(";")[0][:70] for _, line in APP_REFUSALS]
)
def test_invalid_host_of_a_service_is_refused_with_its_path_and_the_fix(services: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(**services)
    assert message in str(refused.value)


def test_application_whose_services_all_have_hosts_is_refused() -> None:
    app = {"name": "shop", "version": "1", "services": {"two": WEB | {"host": "two"}}}
    with pytest.raises(ConfigError, match=r"^app: every service that users reach has a `host`, .*; remove one `host`$"):
        load_app(app)


def test_visits_and_checks_request_the_host_of_the_application() -> None:
    app = {"name": "shop", "version": "1", "services": {"two": WEB | {"host": "two"}, "one": WEB | {"paths": ["/one"]}}}
    with pytest.raises(ConfigError, match=r"app\.visits\.0: no service gets requests for /;"):
        load_app(app)
    assert load_app(app | {"visits": ["/one/x"]}).routes == {"one": ("/one",), "two": ("/",)}


ENVIRONMENT_REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("dev", {"hosts": {"admni": "a.test"}}, "environment.hosts.admni: no service has the host admni; write admin or live (did you mean admin?), or remove it"),
    ("dev", {"hosts": {"admin": "*.a.test"}}, "environment.hosts.admin: '*.a.test' stands for many hosts; write one of them, as in admin.example.com"),
    ("dev", {"hosts": {"admin": "10.0.0.1"}}, "environment.hosts.admin: '10.0.0.1' is an IP address, and a route needs a host name"),
    ("dev", {"hosts": {"admin": "localhost"}}, "environment.hosts.admin: localhost is a host of the whole application (localhost); use another host"),
    ("staging", {"hosts": {"admin": "board-staging.localhost"}}, "environment.hosts.admin: board-staging.localhost is a host of the whole application"),
    ("dev", {"hosts": {"admin": "a.test", "live": "a.test"}}, "environment.hosts.live: admin has the host a.test, too; use another host, or set the same `host`"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stack", "changes", "message"),
    ENVIRONMENT_REFUSALS,
    ids=[line.partition(";")[0][:70] for *_, line in ENVIRONMENT_REFUSALS],
)
def test_invalid_host_of_an_environment_is_refused_with_its_path_and_the_fix(
    stack: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_environment(settings(stack, **changes), load())
    assert message in str(refused.value)


def test_hosts_without_a_service_that_has_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^environment\.hosts\.admin: no service has the host admin; remove it$"):
        load_environment(environment("dev") | {"hosts": {"admin": "a.test"}}, load_app(project()))


def test_host_that_a_wildcard_of_the_application_includes_is_refused() -> None:
    env = settings("staging", hosts={"admin": "admin.shop.test"})
    env["kubernetes"]["hostnames"] = ["*.shop.test"]
    with pytest.raises(
        ConfigError,
        match=r"environment\.hosts\.admin: admin\.shop\.test is a host of the whole application \(\*\.shop\.test\);",
    ):
        load_environment(env, load())


def test_default_host_that_is_too_long_is_refused() -> None:
    env = settings("staging")
    env["kubernetes"]["url"] = "http://" + ".".join(["a" * 49] * 5)
    with pytest.raises(
        ConfigError, match=r"environment\.hosts\.admin: the default is not valid: .* is too long; use at most 253"
    ):
        load_environment(env, load())


def test_more_hosts_than_an_http_route_accepts_are_refused() -> None:
    env = settings("staging")
    env["kubernetes"]["hostnames"] = [f"h{number}.test" for number in range(14)]
    with pytest.raises(
        ConfigError,
        match=r"environment\.kubernetes\.hostnames: .* and 2 of services with `host`, are 17 hosts, .* use at most 13",
    ):
        load_environment(env, load())


def test_pull_request_environment_has_hosts_below_the_domain_of_the_template() -> None:
    template = settings("staging", hosts={"admin": "admin.example.com"})
    changed = pr_settings(template, "board", "pr-7", ["admin", "live"])
    assert changed["hosts"] == {"admin": "admin-board-pr-7.localhost", "live": "live-board-pr-7.localhost"}
    assert "hosts" not in pr_settings(template, "board", "pr-7")
    with pytest.raises(
        ConfigError, match=r"^ENV: a+-board-pr-7 can't be the first part of a host name; use at most 63"
    ):
        pr_settings(template, "board", "pr-7", ["a" * 60])
