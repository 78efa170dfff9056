"""`make check`: its verdict on the answers of an engine or a cluster. The real questions are tested in tests/e2e."""

import copy
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pulumi import RunError

from ci import check
from components import checkpoint, platforms
from components.config import load_app, load_environment
from components.platforms import engine, isolation
from components.platforms.engine import Container
from components.release import Slot

from .program import CONTAINER, SECRETS, Deployment, deploy, environment, exported, first, pods, project

APP = load_app(project())
DEV = load_environment(environment(), APP)
HEALTHY = dict.fromkeys([("blue", "web"), ("blue", "api"), ("blue", "worker"), ("", "database"), ("", "cache")], (1, 1))


def required(stack: str, deployed: Deployment, live: Slot = Slot.BLUE) -> Mapping[tuple[str, str], int]:
    state = checkpoint.parse(exported(deployed))
    return check.standing(APP, load_environment(environment(stack), APP), live, state)


@pytest.mark.parametrize("stack", ["dev", "staging"])
class TestSmokeGate:
    CHECKS = ({"path": "/any/page", "contains": "$(main)"},)

    def smoke_command(self, stack: str) -> tuple[Deployment, str]:
        deployed = deploy(project() | {"checks": list(self.CHECKS)}, environment(stack), stack=stack)
        inputs = deployed.by_name["blue-smoke"].inputs
        command = inputs.get("command") or inputs["spec"]["template"]["spec"]["containers"][0]["command"]
        return deployed, " ".join(command)

    def test_smoke_test_requests_the_checks_of_the_app(self, stack: str) -> None:
        _, command = self.smoke_command(stack)
        assert (
            '{"name": "app.checks.0: /any/page", "path": "/any/page", "status": 200, "headers": {}, "contains": "$(main)"}]'
            in command
        )

    def test_checks_are_no_part_of_a_release(self, stack: str) -> None:
        assert self.smoke_command(stack)[0].release == first(stack).release
        smoke = deploy(project() | {"checks": list(self.CHECKS)}, environment(stack), export=exported(first(stack)),
                      stack=stack).by_name["blue-smoke"]  # fmt: skip
        assert smoke.ignores == ("*",)


@pytest.mark.parametrize(("days", "good"), [("13", False), ("15", True)])
def test_certificate_that_expires_soon_is_reported(days: str, good: bool, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "made.pem"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=x",
    ]
    subprocess.run([*words, "-days", days, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    if good:
        assert check.good_until(certificate.read_text(), 14).endswith("GMT")
    else:
        with pytest.raises(RunError, match=r"good until .* only; renew it"):
            check.good_until(certificate.read_text(), 14)


class TestContainers:
    @pytest.mark.parametrize("stack", ["dev", "staging"])
    def test_every_tier_of_the_live_slot_and_shared_tier_is_required(self, stack: str) -> None:
        assert required(stack, first(stack)) == dict.fromkeys(HEALTHY, 1)

    def test_on_docker_every_replica_is_required(self) -> None:
        env = environment() | {"tiers": {"api": {"replicas": 2}}}
        containers = HEALTHY | {("blue", "api"): (1, 1)}
        assert [*check.unready(required("dev", deploy(env=env)), containers)] == ["api-blue: 1 of 2 are up and healthy"]

    def test_tier_that_was_never_created_is_reported(self) -> None:
        [missed] = check.unready(required("dev", first(), Slot.GREEN), {**HEALTHY, ("green", "web"): (1, 1),
                                                                     ("green", "api"): (1, 1)})  # fmt: skip
        assert missed == "worker-green: 0 of 1 are up and healthy"

    @pytest.mark.parametrize("stack", ["dev", "staging"])
    def test_unhealthy_container_is_named(self, stack: str) -> None:
        assert not [*check.unready(required(stack, first(stack)), HEALTHY)]
        containers = HEALTHY | {("", "cache"): (0, 1), ("blue", "api"): (2, 3)}
        problems = ["api-blue: 2 of 3 are up and healthy", "cache: 0 of 1 are up and healthy"]
        assert [*check.unready(required(stack, first(stack)), containers)] == problems


def standing() -> list[Container]:
    """Return the board's containers on the networks that they are connected to."""
    tiers = [
        entry for entry in first() if entry.type == CONTAINER and entry.labels["tiers.role"] in ("tier", "gateway")
    ]
    return [
        Container(
            name=entry.inputs["name"],
            role=entry.labels["tiers.role"],
            tier=entry.labels.get("tiers.tier", ""),
            published=tuple(f"{port['internal']}/tcp" for port in entry.inputs.get("ports") or ()),
            addresses={network["name"]: "172.20.0.2/16" for network in entry.inputs["networksAdvanced"]},
        )
        for entry in tiers
    ]


class TestIsolationOnDocker:
    def test_deployed_board_has_no_open_route(self) -> None:
        assert len(standing()) == 6
        assert not [*isolation.of_engine(APP, standing(), ())]

    def test_published_port_of_a_tier_is_reported(self) -> None:
        open_one = [
            *standing(),
            Container(name="stray", role="tier", tier="api", published=("8000/tcp",), addresses={}),
        ]
        assert [*isolation.of_engine(APP, open_one, ())] == ["stray publishes 8000/tcp"]

    def test_container_that_accepts_connections_of_this_machine_is_reported(self) -> None:
        assert [*isolation.of_engine(APP, standing(), {"board-dev-database-1"})] == [
            "board-dev-database-1 takes connections from this machine"
        ]

    def test_connection_from_another_network_is_not_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            near, far = (
                Container(name=network, role="tier", tier="api", published=(), addresses={network: f"127.0.0.1/{size}"})
                for network, size in (("near", 8), ("outside", 8))
            )
            assert engine.answering(DEV, [near, far], {"api": port}, "outside") == {"near"}
            began_at = socket.socket.getsockname
            monkeypatch.setattr(socket.socket, "getsockname", lambda self: ("192.0.2.2", began_at(self)[1]))
            assert engine.answering(DEV, [near], {"api": port}, "outside") == set()

    def test_web_on_the_data_network_is_reported(self) -> None:
        web = Container(
            name="web", role="tier", tier="web", published=(), addresses={"board-dev-data": "172.20.0.9/16"}
        )
        problems = [*isolation.of_engine(APP, [*standing(), web], ())]
        assert sorted(problems) == [
            "web can reach board-dev-cache-1, by network board-dev-data",
            "web can reach board-dev-database-1, by network board-dev-data",
        ]


def objects(deployment: str | Deployment = "staging") -> dict[str, list[dict[str, Any]]]:
    """Return the board's objects and one pod of each of its tiers."""
    entries = [
        copy.deepcopy(entry) for entry in (first(deployment) if isinstance(deployment, str) else deployment).objects
    ]
    kinds = {
        kind: [entry.inputs for entry in entries if entry.kind == kind]
        for kind in ("Service", "HTTPRoute", "NetworkPolicy")
    }
    running = [
        {"metadata": {"name": name, "labels": dict(labels)}}
        for entry in entries
        for name, (labels, _) in pods(entry.inputs).items()
        if labels[checkpoint.LABEL_ROLE] == "tier"
    ]
    return {**kinds, "Pod": running}


def test_backup_pod_reaches_the_database_and_accepts_no_connection() -> None:
    env = environment("staging")
    env["tiers"]["database"]["backup"] = {"target": {"volume": True}}
    manifests = objects(deploy(env=env, stack="staging", secrets=SECRETS | {"backup-key": "the-key-of-backups"}))
    assert "backup" in {entry["metadata"]["name"] for entry in manifests["Pod"]}
    assert list(isolation.of_cluster(APP, manifests, "board-staging")) == []


def service(manifests: dict[str, list[dict[str, Any]]]) -> None:
    manifests["Service"][0]["spec"]["type"] = "LoadBalancer"


def route(manifests: dict[str, list[dict[str, Any]]]) -> None:
    manifests["HTTPRoute"][0]["spec"]["rules"][0]["backendRefs"] = [{"name": "database", "port": 5432}]


def wide(manifests: dict[str, list[dict[str, Any]]]) -> None:
    [policy] = [entry for entry in manifests["NetworkPolicy"] if entry["metadata"]["name"] == "database"]
    policy["spec"]["ingress"].append({"from": [{"namespaceSelector": {}}]})


def needy(manifests: dict[str, list[dict[str, Any]]]) -> None:
    [web] = [entry for entry in manifests["Pod"] if entry["metadata"]["name"] == "web-blue"]
    web["metadata"]["labels"]["tiers.needs/database"] = "yes"


def bare(manifests: dict[str, list[dict[str, Any]]]) -> None:
    manifests["NetworkPolicy"].clear()


class TestIsolationOnKubernetes:
    def test_deployed_board_has_no_open_route(self) -> None:
        assert len(objects()["Pod"]) == 5
        assert not [*isolation.of_cluster(APP, objects(), "board-staging")]

    def test_replicas_are_reported_once(self) -> None:
        # Three pods are of web, api and worker; three are instances of the database; four are the cache's members and their proxy.
        assert len(objects("prod")["Pod"]) == 10
        assert not [*isolation.of_cluster(APP, objects("prod"), "board-prod")]
        bared = objects("prod") | {"NetworkPolicy": []}
        problems = [*isolation.of_cluster(APP, bared, "board-prod")]
        assert "a pod of no tier may connect to cache-1" in problems
        assert "web-blue may connect to cache-proxy" in problems
        assert "web-blue may connect to database-ha-1" in problems
        assert "cache-0 may connect to cache-1" not in problems
        assert "database-ha-1 may connect to database-ha-2" not in problems

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (service, "is open to the outside (LoadBalancer)"),
            (route, "leads to database"),
            (wide, "a pod of another namespace may connect to database"),
            (needy, "web-blue may connect to database"),
            (bare, "a pod of no tier may connect to cache"),
        ],
    )
    def test_open_route_is_reported(
        self, change: Callable[[dict[str, list[dict[str, Any]]]], None], problem: str
    ) -> None:
        manifests = objects()
        change(manifests)
        assert any(line.endswith(problem) for line in isolation.of_cluster(APP, manifests, "board-staging"))


def live(**changed: Any) -> check.Live:
    app = load_app({key: value for key, value in (project() | changed).items() if value is not ...})
    empty = checkpoint.Checkpoint()
    return check.Live(app=app, environment=DEV, stack="dev", slot=Slot.BLUE, url="http://127.0.0.1:9", known=empty)


def names(stack: check.Live) -> list[str]:
    return [name for name, _ in stack.questions()]


class TestQuestions:
    def test_each_check_of_the_app_adds_a_question(self) -> None:
        checks = [{"path": "/"}, {"path": "/api/release"}, {"path": "/any/page"}]
        assert len(names(live(checks=checks))) == 9

    def test_database_cluster_is_checked_for_its_failover_quorum(self) -> None:
        question = "a failover needs a quorum"
        env = environment("staging")
        assert question not in names(replace(live(), environment=load_environment(env, APP)))
        env["tiers"]["database"]["ha"] = True
        assert question in names(replace(live(), environment=load_environment(env, APP)))

    def test_question_without_configuration_is_not_described(self) -> None:
        api = {key: value for key, value in project()["api"].items() if key != "migrate"} | {"needs": ["cache"]}
        questions = dict(live(checks=[], database=..., api=api, worker=...).questions())
        assert check.verdict(questions["the database is ready"]) == ("not described", "app.database")
        migrated = check.verdict(questions["the database has the release's migrations"])
        assert migrated == ("not described", "migrate.check of a tier")
        assert check.verdict(questions["the application answers as expected"]) == ("not described", "app.checks")

    def test_migration_check_command_decides_the_verdict(self, monkeypatch: pytest.MonkeyPatch) -> None:
        api = project()["api"]
        api["migrate"] |= {"check": ["alembic", "current", "--check-heads"]}
        question = dict(live(api=api).questions())["the database has the release's migrations"]
        ran: list[Any] = []

        def execute(*words: Any) -> str:
            ran.append(words[3:])
            return "001 (head)"

        monkeypatch.setattr(platforms, "execute", execute)
        assert check.verdict(question) == ("ok", "001 (head)")
        assert ran == [("api", "blue", ("alembic", "current", "--check-heads"))]

        def refuse(*words: Any) -> str:
            raise RunError("it ended with exit code 1")

        monkeypatch.setattr(platforms, "execute", refuse)
        assert check.verdict(question) == ("FAILED", "it ended with exit code 1")

    def test_wrong_answer_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(check, "PATIENCE", 0)
        questions = dict(live(checks=[{"path": "/page"}]).questions())
        verdict, reason = check.verdict(questions["/page answers as expected"])
        assert (verdict, "refused" in reason) == ("FAILED", True)

    @pytest.mark.parametrize(
        ("url", "address"),
        [
            ("http://board.localhost:8000", ("http://127.0.0.1:8000", "board.localhost")),
            ("https://board.localhost", ("https://127.0.0.1", "board.localhost")),
            ("https://board.example.com", ("https://board.example.com", "board.example.com")),
        ],
    )
    def test_localhost_names_are_requested_on_the_loopback_address(self, url: str, address: tuple[str, str]) -> None:
        assert check.reached(url) == address
