"""Tests of `make heal`, which clears locks, ends orphaned providers, and removes or restores objects.

The end-to-end tests run `make heal` on real engines.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pulumi import RunError

from ci import heal
from components.config import load_app, load_environment
from components.platforms.docker.inspect import DockerInspector
from components.platforms.inventory import Inventory

from .program import environment, project

DEAD_PROCESS = 2**22 + 1
"""Process id above the maximum of Linux. Therefore no process has this id."""


@pytest.fixture
def commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Mock Pulumi with a file backend in `tmp_path`, and return the list that records Pulumi's commands."""
    commands: list[str] = []

    def pulumi(*words: str) -> str:
        commands.append(" ".join(words))
        return json.dumps({"url": f"file://{tmp_path}"})

    monkeypatch.setattr(heal, "pulumi", pulumi)
    monkeypatch.setattr(heal, "project", lambda: "board")
    return commands


@pytest.fixture(autouse=True)
def running_workloads(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], tuple[int, int]]:
    """Mock the running workloads of the platform, and return the mapping in which a test adds workloads.

    The mapping is (slot, tier) → (ready replicas, expected replicas).
    """
    workloads: dict[tuple[str, str], tuple[int, int]] = {}
    app = load_app(project())
    monkeypatch.setattr(heal, "load", lambda stack: (app, load_environment(environment(), app)))
    monkeypatch.setattr(DockerInspector, "replica_counts", lambda self: workloads)
    return workloads


@pytest.mark.parametrize(("force", "is_removed"), [("", False), ("contract", False), ("state", True)])
def test_make_heal_removes_running_objects_only_with_force_state_if_the_pulumi_state_is_empty(
    force: str,
    is_removed: bool,
    running_workloads: dict[Any, Any],
    commands_run: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Check that the removal requires FORCE=state, because the objects may belong to a state in another backend."""
    running_workloads |= {("blue", "api"): (1, 1), ("", "database"): (1, 1)}
    strays: list[object] = []

    def remove_strays(*arguments: object) -> list[str]:
        strays.append(arguments[1])
        return ["board-dev-blue-api-1"]

    monkeypatch.setenv("TIERS_FORCE", force)
    monkeypatch.setattr(heal, "state", lambda stack: {"deployment": {"resources": []}})
    monkeypatch.setattr(heal, "last_update", lambda stack: {"result": "failed"})
    monkeypatch.setattr(DockerInspector, "remove_strays", remove_strays)
    if is_removed:
        heal.main("dev")
        assert strays == [[]]
    else:
        with pytest.raises(RunError, match=r"these containers run: blue api, database; .*make heal FORCE=state"):
            heal.main("dev")
        assert not strays


def write_lock(backend: Path, **lock_fields: Any) -> None:
    folder = backend / ".pulumi/locks/organization/board/dev"
    folder.mkdir(parents=True)
    content = {"pid": DEAD_PROCESS, "username": "me", "hostname": socket.gethostname(), "timestamp": "today"}
    (folder / "1.json").write_text(json.dumps(content | lock_fields))


def test_make_heal_changes_nothing_in_a_healthy_stack(commands_run: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heal, "state", lambda stack: {"deployment": {"resources": []}})
    monkeypatch.setattr(heal, "last_update", lambda stack: {})
    heal.main("dev")
    assert commands_run == ["whoami --json"]


@pytest.mark.parametrize(
    ("last", "failed"), [({}, False), ({"result": "succeeded"}, False), ({"result": "failed"}, True)]
)
def test_make_heal_removes_objects_missing_from_the_state_only_if_the_last_update_failed(
    last: dict[str, str], failed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Check that `make heal` uses the result of the last update, because the state does not show every failure.

    For example, if only the process of a provider died, the state has no lock and no pending operation.
    """
    monkeypatch.setattr(heal, "unlock", lambda stack: False)
    monkeypatch.setattr(heal, "state", lambda stack: {"deployment": {"resources": []}})
    monkeypatch.setattr(heal, "last_update", lambda stack: last)
    monkeypatch.setattr(
        heal, "load", lambda stack: (load_app(project()), load_environment(environment(), load_app(project())))
    )
    monkeypatch.setattr(heal, "orphaned_processes", list)
    monkeypatch.setattr(DockerInspector, "remove_strays", lambda *_: ["board-dev-blue-api-1"])
    heal.main("dev")
    assert ("removed board-dev-blue-api-1, which is not in the checkpoint" in capsys.readouterr().out) == failed


def test_make_heal_clears_the_state_lock_of_a_dead_pulumi_process(commands_run: list[str], tmp_path: Path) -> None:
    write_lock(tmp_path)
    assert heal.unlock("dev")
    assert commands_run[-1] == "cancel --yes --stack dev"


@pytest.mark.parametrize(
    ("lock_fields", "message"),
    [
        ({"hostname": "elsewhere"}, "is locked by me@elsewhere"),
        ({"pid": os.getppid()}, "is being updated by me@"),
    ],
)
def test_make_heal_keeps_the_state_lock_of_another_host_or_of_a_running_update(
    commands_run: list[str], tmp_path: Path, lock_fields: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heal, "_command_line", lambda process: ["pulumi", "up"])
    write_lock(tmp_path, **lock_fields)
    with pytest.raises(RunError, match=message):
        heal.unlock("dev")
    assert "cancel" not in " ".join(commands_run)


def test_make_heal_clears_a_state_lock_if_its_process_id_belongs_to_another_program(
    commands_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heal, "_command_line", lambda process: ["/usr/bin/editor"])
    write_lock(tmp_path, pid=os.getppid())
    assert heal.unlock("dev")


def test_make_heal_removes_an_empty_attributes_file_of_a_checkpoint(commands_run: list[str], tmp_path: Path) -> None:
    write_lock(tmp_path)
    folder = tmp_path / ".pulumi/stacks/board"
    folder.mkdir(parents=True)
    for name, text in (
        ("dev.json", "{}"),
        ("dev.json.attrs", ""),
        ("dev.json.bak.attrs", "{}"),
        ("prod.json.attrs", ""),
    ):
        (folder / name).write_text(text)
    heal.unlock("dev")
    assert {file.name for file in folder.iterdir()} == {"dev.json", "dev.json.bak.attrs", "prod.json.attrs"}


def test_only_provider_processes_without_a_running_pulumi_engine_are_orphans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as engine, socket.socket() as closed:
        engine.bind(("127.0.0.1", 0))
        engine.listen()
        closed.bind(("127.0.0.1", 0))
        provider = tmp_path / "pulumi-resource-test"
        provider.write_text("import time; print('started', flush=True); time.sleep(60)")
        providers = [
            subprocess.Popen(
                [sys.executable, str(provider), f"127.0.0.1:{entry.getsockname()[1]}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for entry in (engine, closed)
        ]
        try:
            # Wait for a line of output, because a new process may have no command line yet when Popen returns.
            for process in providers:
                assert process.stdout and process.stdout.readline()
            orphans = set(heal.orphaned_processes())
            assert providers[1].pid in orphans
            assert providers[0].pid not in orphans
            assert os.getpid() not in orphans
            monkeypatch.setattr(heal, "_parent", lambda folder: providers[0].pid)
            assert providers[1].pid not in set(heal.orphaned_processes()), "its parent is a running Pulumi process"
        finally:
            for process in providers:
                process.kill()
                process.communicate()


# ---------------------------------------------------------------------- missing and stopped objects

RUNNING = {
    "urn": "urn:pulumi:dev::board::docker:index/container:Container::gateway",
    "type": "docker:index/container:Container",
    "id": "1",
    "custom": True,
    "inputs": {"name": "board-dev-gateway", "labels": [{"label": "tiers.app", "value": "board"}]},
}
DATA = {
    "urn": "urn:pulumi:dev::board::docker:index/volume:Volume::database-data",
    "type": "docker:index/volume:Volume",
    "id": "board-dev-database-data",
    "custom": True,
    "protect": True,
    "inputs": {"name": "board-dev-database-data"},
}
PROVIDER = {
    "urn": "urn:pulumi:dev::board::pulumi:providers:docker::engine",
    "type": "pulumi:providers:docker",
    "id": "9",
    "custom": True,
    "inputs": {},
}
STATE: dict[str, Any] = {"deployment": {"resources": [PROVIDER, RUNNING, DATA]}}


@pytest.fixture
def imported_states(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the list that records the states that Pulumi imports."""
    states: list[dict[str, Any]] = []
    monkeypatch.setattr(heal, "pulumi_import", lambda stack, state: states.append(state))
    return states


def set_inventory(monkeypatch: pytest.MonkeyPatch, *keys: str, **more: Any) -> None:
    """Mock the platform's inventory, which lists the keys of the existing objects."""
    monkeypatch.setattr(heal, "read_inventory", lambda location, left: Inventory(keys=frozenset(keys), **more))


def test_make_heal_does_not_change_the_state_if_all_objects_exist(
    monkeypatch: pytest.MonkeyPatch, imported_states: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    set_inventory(monkeypatch, "container 1", "volume board-dev-database-data")
    heal.restore_objects("dev", STATE)
    assert not imported_states
    assert capsys.readouterr().out == ""


def test_make_heal_starts_a_stopped_container_and_keeps_the_container_in_the_state(
    monkeypatch: pytest.MonkeyPatch, imported_states: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    set_inventory(monkeypatch, "container 1", "volume board-dev-database-data", stopped={"container 1": "exited"})
    started: list[object] = []
    monkeypatch.setattr(DockerInspector, "start", lambda self, keys: started.extend(keys) or {})
    monkeypatch.setattr(DockerInspector, "wait_healthy", lambda *_: {})
    heal.restore_objects("dev", STATE)
    assert started == ["container 1"]
    assert not imported_states
    assert "started board-dev-gateway, which was stopped" in capsys.readouterr().out


def test_make_heal_removes_a_container_from_the_state_if_the_container_can_not_be_started(
    monkeypatch: pytest.MonkeyPatch, imported_states: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    set_inventory(monkeypatch, "container 1", "volume board-dev-database-data", stopped={"container 1": "exited"})
    monkeypatch.setattr(DockerInspector, "start", lambda self, keys: {"container 1": "network not found"})
    monkeypatch.setattr(DockerInspector, "wait_healthy", lambda *_: {})
    heal.restore_objects("dev", STATE)
    [state] = imported_states
    assert state["deployment"]["resources"] == [PROVIDER, DATA]
    assert "network not found" in capsys.readouterr().out


@pytest.mark.parametrize("force", ["", "data"])
def test_heal_forgets_lost_protected_data_only_with_force_data(
    force: str,
    monkeypatch: pytest.MonkeyPatch,
    imported_states: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_inventory(monkeypatch, "container 1")
    monkeypatch.setenv("TIERS_FORCE", force)
    if force:
        heal.restore_objects("dev", STATE)
        assert len(imported_states) == 1
        assert "WARNING: Volume database-data is gone" in capsys.readouterr().err
    else:
        with pytest.raises(RunError, match=r"Volume database-data: missing on the engine .*make heal FORCE=data"):
            heal.restore_objects("dev", STATE)
        assert not imported_states


def test_make_heal_is_refused_if_the_docker_engine_has_no_object_of_the_stack(
    monkeypatch: pytest.MonkeyPatch, imported_states: list[dict[str, Any]]
) -> None:
    set_inventory(monkeypatch)
    with pytest.raises(RunError, match="the state lists objects of this stack, but the engine at"):
        heal.restore_objects("dev", STATE)
    assert not imported_states


def test_make_heal_does_not_change_the_state_if_the_docker_engine_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, imported_states: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    def look(location: object, left: object) -> Inventory:
        raise OSError("connection refused")

    monkeypatch.setattr(heal, "read_inventory", look)
    heal.restore_objects("dev", STATE)
    assert not imported_states
    assert "could not be listed: connection refused" in capsys.readouterr().err
