"""Tests of `make run`: settings of the new container, and the end of the command."""

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pulumi import RunError

from ci import container, one_off
from components.config import load_app, load_environment
from components.model.names import LABEL_COMPONENT
from components.platforms import OneOff
from components.platforms.base import Location
from components.platforms.docker import one_off as docker_one_off
from components.platforms.docker import programs
from components.platforms.docker.inspect import DockerInspector
from components.platforms.kubernetes import one_off as kubernetes_one_off
from components.platforms.kubernetes.inspect import KubernetesInspector
from components.release.planner import Slot

from .program import Deployment, checkpoint_of, environment, first_release, pods, project, with_whole_urns

ROOT = Path(__file__).parents[2]
ENTRYPOINT = [*programs.export([programs.ENV_FOLDER]), "/entrypoint"]
LABELS = {"tiers.app": "board", "tiers.environment": "dev", "tiers.role": "tier", "tiers.tier": "api",
          "tiers.slot": "blue", "tiers.release": "1.0.0-abc"}  # fmt: skip
ATTRIBUTES: dict[str, Any] = {
    "Image": "sha256:1234",
    "Config": {
        "Cmd": ["serve"], "Entrypoint": ENTRYPOINT, "Env": ["SLOT=blue"], "Healthcheck": {"Test": ["CMD", "true"]},
        "Hostname": "0a1b", "Labels": LABELS, "User": "10001:10001", "WorkingDir": "/srv",
    },
    "HostConfig": {
        "Binds": ["board-dev-blue-api-secrets-0a1b2c:/run/secrets:ro"], "CapDrop": ["ALL"], "Init": True, "Memory": 2**28,
        "NanoCpus": 5 * 10**8, "NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
        "ReadonlyRootfs": True, "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
        "SecurityOpt": ["no-new-privileges:true"], "Tmpfs": {"/tmp": "rw"},
    },
    "NetworkSettings": {"Networks": {"board-dev-outside": {"Aliases": ["api-blue"]}, "board-dev-data": {"Aliases": ["api-blue"]}}},
}  # fmt: skip
"""Attributes of a service's container, as the engine returns them."""


class TestDockerSettings:
    def test_container_has_image_entrypoint_variables_and_limits_of_the_service(self) -> None:
        settings = docker_one_off.settings(ATTRIBUTES, ["alembic", "current"], terminal=False)
        assert settings["Image"] == "sha256:1234"
        assert settings["Cmd"] == ["alembic", "current"]
        assert {name: settings[name] for name in ("Entrypoint", "Env", "User", "WorkingDir")} == {
            "Entrypoint": ENTRYPOINT, "Env": ["SLOT=blue"], "User": "10001:10001", "WorkingDir": "/srv",
        }  # fmt: skip
        changed = {"AutoRemove", "NetworkMode", "PortBindings", "RestartPolicy"}
        copied = {name: value for name, value in settings["HostConfig"].items() if name not in changed}
        assert copied == {name: value for name, value in ATTRIBUTES["HostConfig"].items() if name not in changed}

    def test_container_serves_no_request_and_does_not_restart(self) -> None:
        settings = docker_one_off.settings(ATTRIBUTES, ["date"], terminal=True)
        assert settings["HostConfig"]["NetworkMode"] == "board-dev-data"
        assert settings["HostConfig"]["PortBindings"] == {}
        assert settings["HostConfig"]["RestartPolicy"] == {"Name": "no"}
        assert settings["HostConfig"]["AutoRemove"] is True
        assert settings["Healthcheck"] == {"Test": ["NONE"]}
        assert "api-blue" not in str(settings)
        assert settings["Tty"] is True

    def test_labels_name_the_stack_but_no_replica(self) -> None:
        assert docker_one_off.settings(ATTRIBUTES, ["date"], terminal=False)["Labels"] == LABELS | {"tiers.role": "run"}


class Engine:
    """Engine that records requests."""

    def __init__(self, state: str = "") -> None:
        self.state, self.requests = state, list[tuple[str, ...]]()

    def create_container_from_config(self, settings: Mapping[str, Any], name: str) -> dict[str, str]:
        self.requests.append(("create", name))
        return {"Id": "1"}

    def connect_container_to_network(self, identity: str, network: str) -> None:
        self.requests.append(("connect", network))

    def inspect_container(self, identity: str) -> dict[str, Any]:
        if not self.state:
            raise docker_one_off.sdk().errors.NotFound("gone")
        return {"State": {"Status": self.state}}

    def stop(self, identity: str, timeout: int) -> None:
        self.requests.append(("stop", str(timeout)))
        raise docker_one_off.sdk().errors.NotFound("gone")

    def remove_container(self, identity: str, **_: bool) -> None:
        self.requests.append(("remove", identity))


class TestDockerContainer:
    def create(self, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Any:
        monkeypatch.setattr(docker_one_off, "connect", lambda host, within: SimpleNamespace(api=engine))
        source: Any = SimpleNamespace(name="board-dev-blue-api-1", attrs=ATTRIBUTES)
        monkeypatch.setattr(DockerInspector, "_running", lambda *_, within: [source])
        inspector = DockerInspector(location=Location(app="board", stack="dev", host="unix:///run/e.sock"))
        settings: Any = None
        return inspector.one_off(settings, "api", Slot.BLUE, ["date"], terminal=False)

    def test_container_joins_all_networks_and_is_removed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = Engine()
        with self.create(monkeypatch, engine) as created:
            assert created.name.startswith("board-dev-blue-api-run-")
            assert created.release == "1.0.0-abc"
            assert created.attach == [
                "docker", "--host", "unix:///run/e.sock", "start", "--attach", "--interactive", created.name,
            ]  # fmt: skip
            assert created.exit_code(7) == 7
        assert engine.requests == [
            ("create", created.name), ("connect", "board-dev-outside"), ("stop", "10"), ("remove", "1"),
        ]  # fmt: skip

    def test_container_is_removed_after_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = Engine()
        with pytest.raises(SystemExit), self.create(monkeypatch, engine):
            sys.exit("stopped")
        assert engine.requests[-1] == ("remove", "1")

    def test_client_that_ends_before_the_command_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with (
            pytest.raises(RunError, match="the client ended before the command, so the command was stopped"),
            self.create(monkeypatch, Engine("running")) as created,
        ):
            created.exit_code(0)


# ---------------------------------------------------------------------- Kubernetes


@pytest.fixture(scope="module")
def deployed() -> Deployment:
    return first_release("prod")


def deployments(deployed: Deployment) -> list[dict[str, Any]]:
    """Return the Deployments of services in a slot, as the API returns them: without empty lists."""
    found = [
        entry.inputs for entry in deployed.of_type("Deployment") if "tiers.slot" in entry.inputs["metadata"]["labels"]
    ]
    manifests = [copy.deepcopy(manifest) for manifest in found]
    for manifest in manifests:
        manifest["metadata"]["uid"] = "1234"
        spec = manifest["spec"]["template"]["spec"]
        for holder, field in ((spec, "volumes"), (spec["containers"][0], "volumeMounts")):
            if not holder[field]:
                del holder[field]
    return manifests


def one_off_job(deployment: dict[str, Any], *command: str, terminal: bool = False) -> dict[str, Any]:
    return kubernetes_one_off.job(deployment, "api-run-1", command or ("date",), "toolbox:1", terminal=terminal)


def selected(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_job_of_each_service_runs_the_command_with_the_pod_of_its_deployment(deployed: Deployment) -> None:
    for deployment in deployments(deployed):
        before = copy.deepcopy(deployment)
        job = one_off_job(deployment, "echo", "$(SLOT)", terminal=True)
        assert deployment == before
        template, spec = deployment["spec"]["template"]["spec"], job["spec"]["template"]["spec"]
        [service], [container] = template["containers"], spec["containers"]
        assert container["args"] == ["echo", "$$(SLOT)"]
        assert (container["stdin"], container["stdinOnce"], container["tty"]) == (True, True, True)
        for field in ("command", "env", "image", "resources", "securityContext"):
            assert container.get(field) == service.get(field)
        assert not {"ports", "lifecycle", "startupProbe", "readinessProbe", "livenessProbe"} & container.keys()
        for field in ("automountServiceAccountToken", "securityContext", "serviceAccountName"):
            assert spec[field] == template[field]
        volumes = template.get("volumes", [])
        assert spec["volumes"][: len(volumes)] == volumes
        assert "topologySpreadConstraints" not in spec


def test_job_ends_after_a_day_at_most_and_leaves_nothing(deployed: Deployment) -> None:
    for deployment in deployments(deployed):
        job = one_off_job(deployment)
        assert job["spec"]["activeDeadlineSeconds"] == 24 * 3600
        assert job["spec"]["backoffLimit"] == 0
        assert job["spec"]["ttlSecondsAfterFinished"] <= 60
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
        [owner] = job["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Deployment", deployment["metadata"]["name"], "1234")


def test_no_object_of_a_service_selects_the_pod_of_the_command(deployed: Deployment) -> None:
    for deployment in deployments(deployed):
        labels = one_off_job(deployment)["spec"]["template"]["metadata"]["labels"]
        assert labels["tiers.role"] == "run"
        for entry in deployed.objects:
            spec = entry.inputs.get("spec", {})
            selector = spec.get("selector") or {}
            selector = selector.get("matchLabels", selector)
            if entry.kind in ("Deployment", "PodDisruptionBudget", "PodMonitor", "Service", "StatefulSet") and selector:
                assert not selected(selector, labels), entry.name


def test_network_policies_let_the_pod_connect_as_pods_of_the_service_but_let_nobody_connect_to_it(
    deployed: Deployment,
) -> None:
    policies = [entry.inputs for entry in deployed.of_type("NetworkPolicy")]
    for deployment in deployments(deployed):
        [(service, _)] = pods(deployment).values()
        labels = one_off_job(deployment)["spec"]["template"]["metadata"]["labels"]
        for policy in policies:
            selector = policy["spec"]["podSelector"].get("matchLabels", {})
            name = policy["metadata"]["name"]
            if policy["spec"].get("egress"):
                assert selected(selector, labels) == selected(selector, service), name
            if policy["spec"].get("ingress"):
                assert not selected(selector, labels), name


def test_command_waits_until_the_data_services_accept_connections(deployed: Deployment) -> None:
    waits = {
        deployment["metadata"]["name"]: one_off_job(deployment)["spec"]["template"]["spec"].get("initContainers", [])
        for deployment in deployments(deployed)
    }
    [reach] = waits["api-blue"]
    assert reach["image"] == "toolbox:1"
    assert any(word.startswith("database") for word in reach["command"])
    assert not waits["web-blue"]


class Cluster:
    """Cluster in which one pod of a Job exists."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, deployment: dict[str, Any], phase: str, **state: Any) -> None:
        self.deployment, self.created, self.deleted = deployment, list[dict[str, Any]](), list[str]()
        status = SimpleNamespace(state=SimpleNamespace(terminated=SimpleNamespace(**state) if state else None))
        metadata = SimpleNamespace(name="api-blue-run-1-x", namespace="board", creation_timestamp=1)
        self.pod = SimpleNamespace(metadata=metadata, status=SimpleNamespace(phase=phase, container_statuses=[status]))
        for name in ("connect", "apps", "core"):
            monkeypatch.setattr(kubernetes_one_off, name, lambda _: self)
        monkeypatch.setattr("kubernetes.client.BatchV1Api", lambda _: self)
        monkeypatch.setattr(kubernetes_one_off, "_ENDS_WITHIN", 0)

    def run(self, *, terminal: bool = False) -> Any:
        app = load_app(project())
        settings = load_environment(environment("prod"), app)
        location = Location(app="board", stack="prod", context="lab", namespace="board")
        return KubernetesInspector(location=location).one_off(settings, "api", Slot.BLUE, ["date"], terminal=terminal)

    def sanitize_for_serialization(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return manifest

    def list_namespaced_deployment(self, _: str, label_selector: str) -> Any:
        labels = self.deployment["metadata"]["labels"]
        pairs = dict(pair.split("=") for pair in label_selector.split(",") if "=" in pair)
        return SimpleNamespace(items=[self.deployment] if pairs.items() <= labels.items() else [])

    def list_namespaced_stateful_set(self, *_: str, **__: str) -> Any:
        return SimpleNamespace(items=[])

    def create_namespaced_job(self, _: str, manifest: dict[str, Any]) -> None:
        self.created.append(manifest)

    def delete_namespaced_job(self, name: str, _: str, **__: str) -> None:
        self.deleted.append(name)

    def list_namespaced_pod(self, _: str, label_selector: str) -> Any:
        return SimpleNamespace(items=[self.pod])

    def list_namespaced_event(self, *_: str, **__: str) -> Any:
        return SimpleNamespace(items=[])

    def read_namespaced_pod_log(self, *_: str) -> str:
        return "printed"


class TestKubernetesJob:
    @pytest.fixture
    def api(self, deployed: Deployment) -> dict[str, Any]:
        [api] = [
            manifest for manifest in deployments(deployed) if manifest["metadata"]["labels"][LABEL_COMPONENT] == "api"
        ]
        return api

    def test_job_is_deleted_and_its_exit_code_comes_from_the_pod(
        self, monkeypatch: pytest.MonkeyPatch, api: dict[str, Any]
    ) -> None:
        cluster = Cluster(monkeypatch, api, "Failed", exit_code=7, reason="Error")
        with cluster.run() as created:
            assert created.name == "api-blue-run-1-x"
            assert created.release == api["metadata"]["labels"]["tiers.release"]
            assert created.exit_code(0) == 7
            assert not cluster.deleted
        assert cluster.deleted == [cluster.created[0]["metadata"]["name"]]

    def test_output_without_a_terminal_comes_from_the_log(
        self, monkeypatch: pytest.MonkeyPatch, api: dict[str, Any]
    ) -> None:
        kubectl, target = (
            ["kubectl", "--context", "lab", "--namespace", "board"],
            ["api-blue-run-1-x", "--container", "api"],
        )
        with Cluster(monkeypatch, api, "Running").run() as created:
            assert created.attach == [*kubectl, "logs", "--follow", *target]
            assert created.feed == [*kubectl, "attach", "--stdin", "--quiet", *target]

    def test_terminal_is_attached_to_a_command_that_has_not_ended(
        self, monkeypatch: pytest.MonkeyPatch, api: dict[str, Any]
    ) -> None:
        with Cluster(monkeypatch, api, "Running").run(terminal=True) as created:
            assert created.attach[5:8] == ["attach", "--stdin", "--tty"]
            assert (created.feed, created.printed()) == ((), "printed")
        with Cluster(monkeypatch, api, "Succeeded").run(terminal=True) as created:
            assert created.attach[5:7] == ["logs", "--follow"]

    @pytest.mark.parametrize(
        ("phase", "state", "message"),
        [
            ("Running", {}, "the client ended before the command, so the command was stopped"),
            ("Failed", {"exit_code": 128, "reason": "StartError", "message": "no such file"}, "`date` could not start: no such file"),
        ],
    )  # fmt: skip
    def test_command_without_an_exit_code_is_an_error_and_its_job_is_deleted(
        self, monkeypatch: pytest.MonkeyPatch, api: dict[str, Any], phase: str, state: dict[str, Any], message: str
    ) -> None:
        cluster = Cluster(monkeypatch, api, phase, **state)
        with pytest.raises(RunError, match=message), cluster.run() as created:
            created.exit_code(0)
        assert cluster.deleted


# ---------------------------------------------------------------------- the command on this machine


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Mock a deployed stack, and return the calls of `Inspector.one_off` and the command lines that run."""
    recorded: list[tuple[Any, ...]] = []
    app, exported = load_app(project()), with_whole_urns(checkpoint_of(first_release("dev")))

    @contextmanager
    def create(_: object, *words: Any, terminal: bool) -> Generator[OneOff]:
        recorded.append((*words, terminal))
        yield OneOff(name="board-1", release="1.0.0-abc", attach=["attach"], exit_code=lambda code: code)
        recorded.append(("removed",))

    def attach(words: Sequence[str], feed: Sequence[str]) -> int:
        recorded.append(tuple(words))
        return 7

    monkeypatch.setattr(one_off, "state", lambda stack: exported)
    monkeypatch.setattr(one_off, "load", lambda stack: (app, load_environment(environment("dev"), app)))
    monkeypatch.setattr(one_off.platforms, "inspector", lambda *where: SimpleNamespace(one_off=create))
    monkeypatch.setattr(one_off.process, "undo_when_stopped", lambda name: None)
    monkeypatch.setattr(one_off.process, "attach", attach)
    monkeypatch.setattr(
        one_off.command_journal, "record", lambda stack, entry: recorded.append((stack, entry.target, entry.service))
    )
    return recorded


def test_make_run_names_release_and_slot_and_returns_the_exit_code_of_the_command(
    calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert one_off.run("dev", "api", "echo '$HOME; ls' \"a b\"") == 7
    assert calls == [
        ("dev", "run", "api"),
        ("api", "blue", ["echo", "$HOME; ls", "a b"], False),
        ("attach",),
        ("removed",),
    ]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "  board-1: release 1.0.0-abc of api in slot blue\n")


def test_make_run_with_slot_idle_uses_the_idle_slot(calls: list[tuple[Any, ...]]) -> None:
    one_off.run("dev", "api", "date", "idle")
    assert calls[1][:2] == ("api", "green")


@pytest.mark.parametrize(
    ("service", "command", "message"),
    [
        ("", "date", r"SERVICE: the application has no service ''; use one of api,"),
        ("mailer", "date", r"SERVICE: the application has no service 'mailer'; use one of api,"),
        ("database", "date", r"SERVICE: a second database would use the data of the first, .* `make exec SERVICE=database`"),
        ("api", "", 'CMD is missing; set CMD to the command, as in CMD="alembic current"'),
        ("api", "echo 'x", "CMD: No closing quotation; close the quotation mark"),
    ],
)  # fmt: skip
def test_make_run_without_a_service_of_a_slot_and_a_valid_command_is_refused(
    service: str, command: str, message: str, calls: list[tuple[Any, ...]]
) -> None:
    with pytest.raises(RunError, match=message):
        one_off.run("dev", service, command)
    assert not calls


def test_output_that_the_client_missed_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = iter(["one\n", "one\ntwo\n"])
    monkeypatch.setattr(one_off.process, "attach", lambda *_: 1)
    ended = OneOff(name="pod", release="1", attach=[], printed=lambda: next(texts), exit_code=lambda code: 0)
    assert one_off._follow(ended) == 0  # pyright: ignore[reportPrivateUsage]
    assert capsys.readouterr().out == "one\ntwo\n"


PROGRAM = """
import sys
from ci import process
process.undo_when_stopped("run")
try:
    code = process.attach(sys.argv[1:])
    print(f"code {code}", flush=True)
finally:
    print("removed", flush=True)
"""


def attached(*words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
        **options,
    )  # fmt: skip


def test_attached_command_gets_the_standard_input_and_its_exit_code_is_returned() -> None:
    command = attached("sh", "-c", "cat; exit 3", stdin=subprocess.PIPE)
    assert command.communicate("a line\n", timeout=60)[0] == "a line\ncode 3\nremoved\n"


def test_second_command_gets_the_standard_input_and_ends_with_the_first(tmp_path: Path) -> None:
    copy_of_input = tmp_path / "input"
    program = (
        "import sys; from ci import process;"
        "print(process.attach(['sh', '-c', f'while ! [ -s {sys.argv[1]} ]; do sleep 0.1; done; wc -c'],"
        "['sh', '-c', f'cat > {sys.argv[1]}; sleep 600']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(copy_of_input)], cwd=ROOT, input="text", capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert done.stdout.split() == ["0", "0"]
    assert copy_of_input.read_text() == "text"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_container_is_removed_if_make_is_stopped_or_interrupted(number: signal.Signals) -> None:
    command = attached("sh", "-c", "echo begun; exec sleep 600")
    assert command.stdout
    assert command.stdout.readline() == "begun\n"
    time.sleep(0.2)
    os.killpg(command.pid, number)
    out, _ = command.communicate(timeout=60)
    assert out == "removed\n"


def test_command_gets_an_interrupt_once_and_can_clean_up() -> None:
    command = attached("bash", "-c", "trap 'echo interrupted' INT; echo begun; sleep 1; echo ended")
    assert command.stdout
    assert command.stdout.readline() == "begun\n"
    os.killpg(command.pid, signal.SIGINT)
    assert command.communicate(timeout=60)[0] == "interrupted\nended\nremoved\n"


def test_make_exec_and_make_run_read_commands_in_the_same_way() -> None:
    assert one_off.parse_command is container.parse_command
