"""Healing: which locks are cleared, which processes are ended and which objects are removed. The engines' part is in tests/e2e."""

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
from components.platforms.inventory import Inventory

from .program import environment, project

DEAD = 2**22 + 1
"""Above the highest possible process number."""


@pytest.fixture
def commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Set up a file backend in `tmp_path`, and return the commands that Pulumi receives."""
    commands: list[str] = []

    def pulumi(*words: str) -> str:
        commands.append(" ".join(words))
        return json.dumps({"url": f"file://{tmp_path}"})

    monkeypatch.setattr(heal, "pulumi", pulumi)
    monkeypatch.setattr(heal, "project", lambda: "board")
    return commands


@pytest.fixture(autouse=True)
def running(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the stack's running workloads on its platform: none, unless a test adds some."""
    workloads: dict[tuple[str, str], tuple[int, int]] = {}
    app = load_app(project())
    monkeypatch.setattr(heal, "load", lambda stack: (app, load_environment(environment(), app)))
    monkeypatch.setattr(heal.platforms, "ready", lambda *where: workloads)
    return workloads


@pytest.mark.parametrize(("force", "removed"), [("", False), ("contract", False), ("state", True)])
def test_running_objects_of_an_empty_state_are_removed_only_by_force(
    force: str, removed: bool, running: dict[Any, Any], commands_run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty state may belong to another backend: the running objects may serve users."""
    running |= {("blue", "api"): (1, 1), ("", "database"): (1, 1)}
    strays: list[object] = []

    def remove_strays(*arguments: object) -> list[str]:
        strays.append(arguments[1])
        return ["board-dev-blue-api-1"]

    monkeypatch.setenv("TIERS_FORCE", force)
    monkeypatch.setattr(heal, "state", lambda stack: {"deployment": {"resources": []}})
    monkeypatch.setattr(heal, "last_update", lambda stack: {"result": "failed"})
    monkeypatch.setattr(heal.engine, "remove_strays", remove_strays)
    if removed:
        heal.main("dev")
        assert strays == [set()]
    else:
        with pytest.raises(RunError, match=r"blue api, database of it run: .*make heal FORCE=state"):
            heal.main("dev")
        assert not strays


def lock(backend: Path, **holder: Any) -> None:
    folder = backend / ".pulumi/locks/organization/board/dev"
    folder.mkdir(parents=True)
    content = {"pid": DEAD, "username": "me", "hostname": socket.gethostname(), "timestamp": "today"}
    (folder / "1.json").write_text(json.dumps(content | holder))


def test_healthy_stack_is_left_alone(commands_run: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heal, "state", lambda stack: {"deployment": {"resources": []}})
    monkeypatch.setattr(heal, "last_update", lambda stack: {})
    heal.main("dev")
    assert commands_run == ["whoami --json"]


@pytest.mark.parametrize(
    ("last", "failed"), [({}, False), ({"result": "succeeded"}, False), ({"result": "failed"}, True)]
)
def test_strays_are_removed_only_after_a_failed_update(
    last: dict[str, str], failed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A provider can die under a living engine: no lock is left, and no operation is pending."""
    monkeypatch.setattr(heal, "unlock", lambda stack: False)
    monkeypatch.setattr(heal, "state", lambda stack: {"deployment": {"resources": []}})
    monkeypatch.setattr(heal, "last_update", lambda stack: last)
    monkeypatch.setattr(
        heal, "load", lambda stack: (load_app(project()), load_environment(environment(), load_app(project())))
    )
    monkeypatch.setattr(heal, "orphans", list)
    monkeypatch.setattr(heal.engine, "remove_strays", lambda *_: ["board-dev-blue-api-1"])
    heal.main("dev")
    assert ("removed board-dev-blue-api-1, which the checkpoint does not know" in capsys.readouterr().out) == failed


def test_lock_of_a_dead_engine_is_cleared(commands_run: list[str], tmp_path: Path) -> None:
    lock(tmp_path)
    assert heal.unlock("dev")
    assert commands_run[-1] == "cancel --yes --stack dev"


@pytest.mark.parametrize(
    ("holder", "message"),
    [
        ({"hostname": "elsewhere"}, "is locked by me@elsewhere"),
        ({"pid": os.getppid()}, "is being updated by me@"),
    ],
)
def test_lock_of_another_host_or_running_update_is_kept(
    commands_run: list[str], tmp_path: Path, holder: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heal, "_words", lambda process: ["pulumi", "up"])
    lock(tmp_path, **holder)
    with pytest.raises(RunError, match=message):
        heal.unlock("dev")
    assert "cancel" not in " ".join(commands_run)


def test_lock_is_cleared_if_another_program_has_its_process_number(
    commands_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heal, "_words", lambda process: ["/usr/bin/editor"])
    lock(tmp_path, pid=os.getppid())
    assert heal.unlock("dev")


def test_empty_attributes_file_of_the_checkpoint_is_removed(commands_run: list[str], tmp_path: Path) -> None:
    lock(tmp_path)
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


def test_only_providers_without_an_engine_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as engine, socket.socket() as closed:
        engine.bind(("127.0.0.1", 0))
        engine.listen()
        closed.bind(("127.0.0.1", 0))
        provider = tmp_path / "pulumi-resource-test"
        provider.write_text("import time; print('started', flush=True); time.sleep(60)")
        started = [
            subprocess.Popen(
                [sys.executable, str(provider), f"127.0.0.1:{entry.getsockname()[1]}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for entry in (engine, closed)
        ]
        try:
            # A process may have no command line yet: the kernel writes it after it has closed Popen's pipe.
            for container in started:
                assert container.stdout and container.stdout.readline()
            orphans = set(heal.orphans())
            assert started[1].pid in orphans
            assert started[0].pid not in orphans
            assert os.getpid() not in orphans
            monkeypatch.setattr(heal, "_parent", lambda folder: started[0].pid)
            assert started[1].pid not in set(heal.orphans()), "a living Pulumi process is its parent"
        finally:
            for container in started:
                container.kill()
                container.communicate()


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
def imported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the states that Pulumi imports."""
    states: list[dict[str, Any]] = []
    monkeypatch.setattr(heal, "pulumi_import", lambda stack, state: states.append(state))
    return states


def seen(monkeypatch: pytest.MonkeyPatch, *keys: str, **more: Any) -> None:
    """Set the objects that the platform has."""
    monkeypatch.setattr(heal, "look", lambda location, left: Inventory(keys=frozenset(keys), **more))


def test_stack_without_missing_objects_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, imported: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    seen(monkeypatch, "container 1", "volume board-dev-database-data")
    heal.put_back("dev", STATE)
    assert not imported
    assert capsys.readouterr().out == ""


def test_stopped_container_is_started_and_stays_in_the_state(
    monkeypatch: pytest.MonkeyPatch, imported: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    seen(monkeypatch, "container 1", "volume board-dev-database-data", stopped={"container 1": "exited"})
    started: list[object] = []
    monkeypatch.setattr(heal.engine, "start", lambda location, ids: started.extend(ids) or {})
    monkeypatch.setattr(heal.engine, "wait_healthy", lambda *_: {})
    heal.put_back("dev", STATE)
    assert started == ["1"]
    assert not imported
    assert "started board-dev-gateway, which was stopped" in capsys.readouterr().out


def test_container_that_cannot_start_is_removed_from_the_state(
    monkeypatch: pytest.MonkeyPatch, imported: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    seen(monkeypatch, "container 1", "volume board-dev-database-data", stopped={"container 1": "exited"})
    monkeypatch.setattr(heal.engine, "start", lambda location, ids: {"1": "network not found"})
    monkeypatch.setattr(heal.engine, "wait_healthy", lambda *_: {})
    heal.put_back("dev", STATE)
    [state] = imported
    assert state["deployment"]["resources"] == [PROVIDER, DATA]
    assert "network not found" in capsys.readouterr().out


@pytest.mark.parametrize("force", ["", "data"])
def test_lost_protected_data_is_removed_from_the_state_only_by_force(
    force: str, monkeypatch: pytest.MonkeyPatch, imported: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    seen(monkeypatch, "container 1")
    monkeypatch.setenv("TIERS_FORCE", force)
    if force:
        heal.put_back("dev", STATE)
        assert len(imported) == 1
        assert "WARNING: Volume database-data is gone" in capsys.readouterr().err
    else:
        with pytest.raises(RunError, match=r"Volume database-data: gone from the engine .*make heal FORCE=data"):
            heal.put_back("dev", STATE)
        assert not imported


def test_engine_without_any_object_of_the_stack_is_refused(
    monkeypatch: pytest.MonkeyPatch, imported: list[dict[str, Any]]
) -> None:
    seen(monkeypatch)
    with pytest.raises(RunError, match="nothing of this stack is on the engine at"):
        heal.put_back("dev", STATE)
    assert not imported


def test_engine_that_does_not_answer_leaves_the_state_as_it_is(
    monkeypatch: pytest.MonkeyPatch, imported: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    def look(location: object, left: object) -> Inventory:
        raise OSError("refused")

    monkeypatch.setattr(heal, "look", look)
    heal.put_back("dev", STATE)
    assert not imported
    assert "could not be asked what is there: refused" in capsys.readouterr().err
