"""Tests of the lab's installation steps: base image, lock against parallel installations, and `needs` of each step."""

import fcntl
import socket
import threading
from pathlib import Path

import pytest

from lab import cluster, engine, s3, steps, toolchain
from lab.__main__ import PARTS

from .program import ROOT


def test_commands_that_build_the_base_image_of_the_lab_do_not_contain_the_path_of_the_repository() -> None:
    assert not [word for word in engine.BOOTSTRAP if str(ROOT) in word]


def test_installation_step_runs_once_if_two_installations_of_the_lab_run_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CACHE", tmp_path)
    steps_run: list[str] = []
    slow = steps.Step(
        name="it",
        takes="a moment",
        present=lambda: "there" if steps_run else None,
        run=lambda: (threading.Event().wait(0.2), steps_run.append("once"))[1],
    )
    threads = [threading.Thread(target=steps.run_steps, args=([slow],)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps_run == ["once"]


def _start_lab_during_another_build(lab: steps.Step) -> threading.Thread:
    lab_thread = threading.Thread(target=steps.run_steps, args=([lab],), daemon=True)
    lab_thread.start()
    lab_thread.join(timeout=0.5)
    return lab_thread


def test_lab_installation_without_missing_steps_does_not_wait_for_another_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CACHE", tmp_path)
    complete = steps.Step(name="it", takes="a moment", present=lambda: "there", run=lambda: None)
    with (tmp_path / "lab.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not _start_lab_during_another_build(complete).is_alive()


def test_lab_installation_with_a_missing_step_waits_for_another_installation_and_checks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CACHE", tmp_path)
    steps_of_the_other_lab: list[str] = []
    runs: list[str] = []
    missing = steps.Step(
        name="it",
        takes="a moment",
        present=lambda: "there" if steps_of_the_other_lab else None,
        run=lambda: runs.append("again"),
    )
    with (tmp_path / "lab.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lab_thread = _start_lab_during_another_build(missing)
        assert lab_thread.is_alive()
        steps_of_the_other_lab.append("once")
    lab_thread.join(timeout=5)
    assert not lab_thread.is_alive()
    assert not runs


@pytest.mark.parametrize("requested", [("dev", "tools", "data"), *((group,) for group in PARTS)], ids="+".join)
@pytest.mark.parametrize("has_engine", [False, True])
@pytest.mark.parametrize("has_cluster", [False, True])
def test_every_part_of_the_lab_includes_all_steps_that_its_steps_need(
    requested: tuple[str, ...], has_engine: bool, has_cluster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check machines with and without a Docker engine or a cluster. A machine without them needs additional steps."""
    monkeypatch.setattr(engine, "is_answering", lambda: has_engine)
    monkeypatch.setattr(engine, "lab_process", lambda _: None)
    monkeypatch.setattr(cluster, "foreign_cluster", lambda: "an administrator's" if has_cluster else None)
    steps_run = {step.name: step for group in requested for step in PARTS[group]()}
    assert {need for step in steps_run.values() for need in step.needs} <= set(steps_run)


def test_docker_engine_that_accepts_a_connection_but_does_not_answer_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 0.1)
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert engine.is_answering(path) is False


def test_version_of_a_lab_program_is_read_from_the_line_of_its_module_in_go_mod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "HERE", tmp_path)
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "go.mod").write_text(
        "require (\n\texample.com/kubectl v0.9.0\n\texample.com/kube v1.35.4\n)\n"
    )
    assert toolchain.pinned_version("cluster", "example.com/kube") == "v1.35.4"


@pytest.mark.parametrize(
    ("shown", "address"),
    [
        ("172.17.0.0/16 172.17.0.9", "172.17.0.9"),
        ("172.17.0.0/16", "172.17.0.1"),
        (None, ""),
    ],
)
def test_address_of_the_default_bridge_is_its_gateway_or_the_first_address_of_its_subnet(
    shown: str | None, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "command_output", lambda *_: shown)
    monkeypatch.setattr(s3.machine, "BRIDGE", "none")
    urls = s3.endpoints()
    assert urls.get("containers", "") == (f"http://{address}:9000" if address else "")
