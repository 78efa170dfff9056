"""Tests of `make check` with prepared containers and Kubernetes objects.

The end-to-end tests run the same checks on a real engine and a real cluster.
"""

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
from components.config import load_app, load_environment
from components.platforms.docker import isolation as engine
from components.platforms.docker.inspect import DockerInspector, answering_containers
from components.platforms.docker.isolation import Container
from components.platforms.kubernetes import isolation as cluster
from components.release import checkpoint
from components.release.planner import Slot

from .program import CONTAINER, SECRETS, Deployment, checkpoint_of, deploy, environment, first_release, pods, project

APP = load_app(project())
DEV = load_environment(environment(), APP)
HEALTHY = dict.fromkeys([("blue", "web"), ("blue", "api"), ("blue", "worker"), ("", "database"), ("", "cache")], (1, 1))


def required_replicas(stack: str, deployed: Deployment, live: Slot = Slot.BLUE) -> Mapping[tuple[str, str], int]:
    state = checkpoint.parse(checkpoint_of(deployed))
    return check.expected_replicas(APP, load_environment(environment(stack), APP), live, state)


@pytest.mark.parametrize("stack", ["dev", "staging"])
class TestSmokeGate:
    CHECKS = ({"path": "/any/page", "contains": "$(main)"},)

    def smoke_command(self, stack: str) -> tuple[Deployment, str]:
        deployed = deploy(project() | {"checks": list(self.CHECKS)}, environment(stack), stack=stack)
        inputs = deployed.by_name["blue-smoke"].inputs
        command = inputs.get("command") or inputs["spec"]["template"]["spec"]["containers"][0]["command"]
        return deployed, " ".join(command)

    def test_smoke_test_requests_every_path_in_app_checks(self, stack: str) -> None:
        _, command = self.smoke_command(stack)
        assert (
            '{"name": "app.checks.0: /any/page", "path": "/any/page", "status": 200, "headers": {}, "contains": "$(main)"}]'
            in command
        )

    def test_app_checks_do_not_change_the_release_digest(self, stack: str) -> None:
        assert self.smoke_command(stack)[0].release == first_release(stack).release
        smoke = deploy(project() | {"checks": list(self.CHECKS)}, environment(stack), export=checkpoint_of(first_release(stack)),
                      stack=stack).by_name["blue-smoke"]  # fmt: skip
        assert smoke.ignores == ("*",)


@pytest.mark.parametrize(("days", "good"), [("13", False), ("15", True)])
def test_make_check_reports_a_certificate_that_expires_within_14_days(days: str, good: bool, tmp_path: Path) -> None:
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
        assert check.check_expiry(certificate.read_text(), 14).endswith("GMT")
    else:
        with pytest.raises(RunError, match=r"the certificate expires on .*; renew the certificate"):
            check.check_expiry(certificate.read_text(), 14)


class TestContainers:
    @pytest.mark.parametrize("stack", ["dev", "staging"])
    def test_make_check_requires_every_tier_of_the_live_slot_and_every_shared_tier(self, stack: str) -> None:
        assert required_replicas(stack, first_release(stack)) == dict.fromkeys(HEALTHY, 1)

    def test_make_check_requires_every_replica_of_a_tier_on_docker(self) -> None:
        env = environment() | {"tiers": {"api": {"replicas": 2}}}
        containers = HEALTHY | {("blue", "api"): (1, 1)}
        assert [*check.missing_replicas(required_replicas("dev", deploy(env=env)), containers)] == [
            "api-blue: 1 of 2 are up and healthy"
        ]

    def test_make_check_reports_a_tier_without_containers(self) -> None:
        [problem] = check.missing_replicas(required_replicas("dev", first_release(), Slot.GREEN), {**HEALTHY, ("green", "web"): (1, 1),
                                                                     ("green", "api"): (1, 1)})  # fmt: skip
        assert problem == "worker-green: 0 of 1 are up and healthy"

    @pytest.mark.parametrize("stack", ["dev", "staging"])
    def test_make_check_reports_the_tier_of_an_unhealthy_container(self, stack: str) -> None:
        assert not [*check.missing_replicas(required_replicas(stack, first_release(stack)), HEALTHY)]
        containers = HEALTHY | {("", "cache"): (0, 1), ("blue", "api"): (2, 3)}
        problems = ["api-blue: 2 of 3 are up and healthy", "cache: 0 of 1 are up and healthy"]
        assert [*check.missing_replicas(required_replicas(stack, first_release(stack)), containers)] == problems


def deployed_containers() -> list[Container]:
    """Return the containers of the board's tiers and gateway, with published ports and networks."""
    tiers = [
        entry
        for entry in first_release()
        if entry.type == CONTAINER and entry.labels["tiers.role"] in ("tier", "gateway")
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
    def test_deployed_example_application_has_no_forbidden_connection_on_docker(self) -> None:
        assert len(deployed_containers()) == 6
        assert not [*engine.unexpected_routes(APP, deployed_containers(), ())]

    def test_make_check_reports_a_published_port_of_a_tier(self) -> None:
        containers = [
            *deployed_containers(),
            Container(name="stray", role="tier", tier="api", published=("8000/tcp",), addresses={}),
        ]
        assert [*engine.unexpected_routes(APP, containers, ())] == [
            "stray publishes a port that must stay closed: 8000/tcp"
        ]

    def test_make_check_reports_a_tier_container_that_accepts_connections_from_the_host(self) -> None:
        assert [*engine.unexpected_routes(APP, deployed_containers(), {"board-dev-database-1"})] == [
            "board-dev-database-1 accepts connections from this machine, but must not"
        ]

    def test_make_check_ignores_containers_that_answer_only_through_an_unrelated_network(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            near, far = (
                Container(name=network, role="tier", tier="api", published=(), addresses={network: f"127.0.0.1/{size}"})
                for network, size in (("near", 8), ("outside", 8))
            )
            assert answering_containers([near, far], {"api": port}, "outside") == {"near"}
            real_getsockname = socket.socket.getsockname
            monkeypatch.setattr(socket.socket, "getsockname", lambda self: ("192.0.2.2", real_getsockname(self)[1]))
            assert answering_containers([near], {"api": port}, "outside") == set()

    def test_make_check_reports_a_web_container_on_the_network_of_database_and_cache(self) -> None:
        web = Container(
            name="web", role="tier", tier="web", published=(), addresses={"board-dev-data": "172.20.0.9/16"}
        )
        problems = [*engine.unexpected_routes(APP, [*deployed_containers(), web], ())]
        assert sorted(problems) == [
            "web can connect to board-dev-cache-1 through network board-dev-data, but must not",
            "web can connect to board-dev-database-1 through network board-dev-data, but must not",
        ]


def objects(deployment: str | Deployment = "staging") -> dict[str, list[dict[str, Any]]]:
    """Return the board's Services, HTTPRoutes, NetworkPolicies and pods. Identical replicas count as one pod."""
    entries = [
        copy.deepcopy(entry)
        for entry in (first_release(deployment) if isinstance(deployment, str) else deployment).objects
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
    assert list(cluster.unexpected_routes(APP, manifests, "board-staging")) == []


def expose_service(manifests: dict[str, list[dict[str, Any]]]) -> None:
    manifests["Service"][0]["spec"]["type"] = "LoadBalancer"


def route_to_database(manifests: dict[str, list[dict[str, Any]]]) -> None:
    manifests["HTTPRoute"][0]["spec"]["rules"][0]["backendRefs"] = [{"name": "database", "port": 5432}]


def open_network_policy(manifests: dict[str, list[dict[str, Any]]]) -> None:
    [policy] = [entry for entry in manifests["NetworkPolicy"] if entry["metadata"]["name"] == "database"]
    policy["spec"]["ingress"].append({"from": [{"namespaceSelector": {}}]})


def label_web_as_database_client(manifests: dict[str, list[dict[str, Any]]]) -> None:
    [web] = [entry for entry in manifests["Pod"] if entry["metadata"]["name"] == "web-blue"]
    web["metadata"]["labels"]["tiers.needs/database"] = "yes"


def delete_network_policies(manifests: dict[str, list[dict[str, Any]]]) -> None:
    manifests["NetworkPolicy"].clear()


class TestIsolationOnKubernetes:
    def test_deployed_example_application_has_no_forbidden_connection_on_kubernetes(self) -> None:
        assert len(objects()["Pod"]) == 5
        assert not [*cluster.unexpected_routes(APP, objects(), "board-staging")]

    def test_make_check_does_not_report_connections_between_members_of_one_tier(self) -> None:
        # Pods: web, api, worker, three instances of the database, three members of the cache, and the cache proxy.
        assert len(objects("prod")["Pod"]) == 10
        assert not [*cluster.unexpected_routes(APP, objects("prod"), "board-prod")]
        without_policies = objects("prod") | {"NetworkPolicy": []}
        problems = [*cluster.unexpected_routes(APP, without_policies, "board-prod")]
        assert "a pod of no tier can connect to cache-1, but must not" in problems
        assert "web-blue can connect to cache-proxy, but must not" in problems
        assert "web-blue can connect to database-ha-1, but must not" in problems
        assert "cache-0 can connect to cache-1, but must not" not in problems
        assert "database-ha-1 can connect to database-ha-2, but must not" not in problems

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (expose_service, "is open to the outside (LoadBalancer)"),
            (route_to_database, "leads to database"),
            (open_network_policy, "a pod of another namespace can connect to database, but must not"),
            (label_web_as_database_client, "web-blue can connect to database, but must not"),
            (delete_network_policies, "a pod of no tier can connect to cache, but must not"),
        ],
    )
    def test_make_check_reports_a_connection_that_the_tier_graph_forbids(
        self, change: Callable[[dict[str, list[dict[str, Any]]]], None], problem: str
    ) -> None:
        manifests = objects()
        change(manifests)
        assert any(line.endswith(problem) for line in cluster.unexpected_routes(APP, manifests, "board-staging"))


def live_stack(**changed: Any) -> check.Live:
    app = load_app({key: value for key, value in (project() | changed).items() if value is not ...})
    empty = checkpoint.Checkpoint()
    return check.Live(
        app=app, environment=DEV, stack="dev", slot=Slot.BLUE, url="http://127.0.0.1:9", checkpoint_state=empty
    )


def question_names(stack: check.Live) -> list[str]:
    return [name for name, _ in stack.checks()]


class TestQuestions:
    def test_make_check_runs_one_check_for_each_entry_of_the_setting_app_checks(self) -> None:
        checks = [{"path": "/"}, {"path": "/api/release"}, {"path": "/any/page"}]
        assert len(question_names(live_stack(checks=checks))) == 9

    def test_make_check_verifies_the_failover_quorum_of_a_database_cluster_only(self) -> None:
        question = "a failover needs a quorum"
        env = environment("staging")
        assert question not in question_names(replace(live_stack(), environment=load_environment(env, APP)))
        env["tiers"]["database"]["ha"] = True
        assert question in question_names(replace(live_stack(), environment=load_environment(env, APP)))

    def test_make_check_marks_a_check_as_not_described_if_the_application_lacks_its_key(self) -> None:
        api = {key: value for key, value in project()["api"].items() if key != "migrate"} | {"needs": ["cache"]}
        questions = dict(live_stack(checks=[], database=..., api=api, worker=...).checks())
        assert check.run_check(questions["the database is ready"]) == ("not described", "app.database")
        migrated = check.run_check(questions["the database has the release's migrations"])
        assert migrated == ("not described", "migrate.check of a tier")
        assert check.run_check(questions["the application answers as expected"]) == ("not described", "app.checks")

    def test_make_check_fails_if_and_only_if_the_command_in_migrate_check_fails(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        api = project()["api"]
        api["migrate"] |= {"check": ["alembic", "current", "--check-heads"]}
        question = dict(live_stack(api=api).checks())["the database has the release's migrations"]
        executed_commands: list[Any] = []

        def execute(*words: Any) -> str:
            executed_commands.append(words[1:])
            return "001 (head)"

        monkeypatch.setattr(DockerInspector, "execute", execute)
        assert check.run_check(question) == ("ok", "001 (head)")
        assert executed_commands == [("api", "blue", ("alembic", "current", "--check-heads"))]

        def refuse(*words: Any) -> str:
            raise RunError("the command ended with exit code 1")

        monkeypatch.setattr(DockerInspector, "execute", refuse)
        assert check.run_check(question) == ("FAILED", "the command ended with exit code 1")

    def test_make_check_fails_for_an_unreachable_page(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(check, "PATIENCE", 0)
        questions = dict(live_stack(checks=[{"path": "/page"}]).checks())
        verdict, reason = check.run_check(questions["/page answers as expected"])
        assert (verdict, "refused" in reason) == ("FAILED", True)

    @pytest.mark.parametrize(
        ("url", "address"),
        [
            ("http://board.localhost:8000", ("http://127.0.0.1:8000", "board.localhost:8000")),
            ("https://board.localhost", ("https://127.0.0.1", "board.localhost")),
            ("https://board.example.com", ("https://board.example.com", "board.example.com")),
        ],
    )
    def test_make_check_sends_requests_for_localhost_names_to_the_loopback_address(
        self, url: str, address: tuple[str, str]
    ) -> None:
        assert check.connection_target(url) == address
