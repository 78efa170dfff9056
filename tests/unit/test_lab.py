"""Steps of the lab: images do not depend on the clone, and every step runs after the steps it needs."""

import fcntl
import threading
from pathlib import Path

import pytest

from lab import cluster, engine, steps
from lab.__main__ import WHAT

from .program import ROOT


def test_base_image_does_not_depend_on_the_clone() -> None:
    assert not [word for word in engine.BOOTSTRAP if str(ROOT) in word]


def test_two_labs_at_once_run_a_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "CACHE", tmp_path)
    steps_run: list[str] = []
    slow = steps.Step(
        name="it",
        takes="a moment",
        present=lambda: "there" if steps_run else None,
        run=lambda: (threading.Event().wait(0.2), steps_run.append("once"))[1],
    )
    both = [threading.Thread(target=steps.bring, args=([slow],)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert steps_run == ["once"]


def _while_another_lab_builds(lab: steps.Step) -> threading.Thread:
    bringing = threading.Thread(target=steps.bring, args=([lab],), daemon=True)
    bringing.start()
    bringing.join(timeout=0.5)
    return bringing


def test_complete_machine_does_not_wait_for_the_build_of_another_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CACHE", tmp_path)
    complete = steps.Step(name="it", takes="a moment", present=lambda: "there", run=lambda: None)
    with (tmp_path / "lab.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not _while_another_lab_builds(complete).is_alive()


def test_missing_step_waits_for_the_build_of_another_lab_and_checks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CACHE", tmp_path)
    built_by_the_other: list[str] = []
    runs: list[str] = []
    missing = steps.Step(
        name="it",
        takes="a moment",
        present=lambda: "there" if built_by_the_other else None,
        run=lambda: runs.append("again"),
    )
    with (tmp_path / "lab.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        bringing = _while_another_lab_builds(missing)
        assert bringing.is_alive()
        built_by_the_other.append("once")
    bringing.join(timeout=5)
    assert not bringing.is_alive()
    assert not runs


@pytest.mark.parametrize("requested", [("dev", "tools", "data"), *((what,) for what in WHAT)], ids="+".join)
@pytest.mark.parametrize("own_engine", [False, True])
@pytest.mark.parametrize("own_cluster", [False, True])
def test_needs_of_a_step_are_part_of_the_same_run(
    requested: tuple[str, ...], own_engine: bool, own_cluster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a complete machine no step runs, and a missing dependency shows on a new machine only."""
    monkeypatch.setattr(engine, "answers", lambda: own_engine)
    monkeypatch.setattr(engine, "ours", lambda _: None)
    monkeypatch.setattr(cluster, "another", lambda: "an administrator's" if own_cluster else None)
    steps_run = {step.name: step for what in requested for step in WHAT[what]()}
    assert {need for step in steps_run.values() for need in step.needs} <= set(steps_run)
