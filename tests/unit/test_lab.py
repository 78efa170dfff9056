"""What the lab makes is the same in whichever clone it is made, and whatever it is asked for it can begin."""

import threading
from pathlib import Path

import pytest

from lab import cluster, engine, steps
from lab.__main__ import WHAT

from .program import ROOT


def test_a_base_image_knows_nothing_of_the_clone_it_is_made_in() -> None:
    assert not [word for word in engine.BOOTSTRAP if str(ROOT) in word]


def test_two_labs_at_once_make_a_thing_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "CACHE", tmp_path)
    made: list[str] = []
    slow = steps.Step(
        name="it",
        takes="a moment",
        present=lambda: "there" if made else None,
        run=lambda: (threading.Event().wait(0.2), made.append("once"))[1],
    )
    both = [threading.Thread(target=steps.bring, args=([slow],)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert made == ["once"]


@pytest.mark.parametrize("asked", [("dev", "tools", "data"), *((what,) for what in WHAT)], ids="+".join)
@pytest.mark.parametrize("own_engine", [False, True])
@pytest.mark.parametrize("own_cluster", [False, True])
def test_what_a_step_needs_is_made_with_it(
    asked: tuple[str, ...], own_engine: bool, own_cluster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine where all is there already no order is made, so that a missing one is seen on a new machine only."""
    monkeypatch.setattr(engine, "answers", lambda: own_engine)
    monkeypatch.setattr(engine, "ours", lambda _: None)
    monkeypatch.setattr(cluster, "another", lambda: "an administrator's" if own_cluster else None)
    made = {step.name: step for what in asked for step in WHAT[what]()}
    assert {need for step in made.values() for need in step.needs} <= set(made)
