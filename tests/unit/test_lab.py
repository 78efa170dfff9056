"""What the lab makes is the same in whichever clone it is made."""

import threading
from pathlib import Path

import pytest

from lab import engine, steps

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
