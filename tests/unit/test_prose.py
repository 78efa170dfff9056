"""Tests of `make prose`, which lists unclear texts and prints a random sample."""

import re
import subprocess
from pathlib import Path

import pytest

from ci import commands, process, prose
from ci.make_call import Call, CallError

SOURCE = '''"""Module of the sample."""

LIMIT = 5
"""Whatever comes in a second."""


class Queue:
    """Queue of jobs."""

    def put(self, told: str) -> None:
        """Put a job.

        Of a job only its id is kept.
        """
        found, size = 1, 2
        if size:
            raise ValueError(f"{told}: no such job; list {len(told)} jobs")
        raise KeyError(found)


async def test_full_queue_refuses_a_job() -> None:
    """Who puts a job into a full queue."""
    for each in ():
        raise each
'''


@pytest.fixture
def texts(tmp_path: Path) -> list[prose.Text]:
    (tmp_path / "queue.py").write_text(SOURCE)
    return [*prose.read(tmp_path, "queue.py")]


def test_docstrings_and_names_that_break_a_rule_of_style_are_listed_by_line(texts: list[prose.Text]) -> None:
    assert [*prose.candidates(texts)] == [
        "queue.py:4: docstring begins with a pronoun or question word: Whatever comes in a second.",
        "queue.py:10: vague name: told",
        "queue.py:15: vague name: found",
        "queue.py:22: docstring begins with a pronoun or question word: Who puts a job into a full queue.",
        "queue.py:23: vague name: each",
    ]


def test_unclear_texts_are_sorted_by_file_then_line() -> None:
    names = [
        prose.Text(file=file, line=line, kind="names", text="told") for file, line in (("b", 1), ("a", 9), ("a", 2))
    ]
    assert [line.rsplit(":", 2)[0] for line in prose.candidates(names)] == ["a:2", "a:9", "b:1"]


def test_only_commit_subjects_over_72_characters_are_listed() -> None:
    [line] = prose.long_subjects([f"abc {'x' * 72}", f"def {'y' * 73}"])
    assert line == f"commit def: subject has 73 characters, at most 72: {'y' * 73}"


def test_sample_of_texts_has_docstrings_errors_and_test_names(texts: list[prose.Text]) -> None:
    drawn = {kind: sorted(text.text for text in prose.sample(texts, kind, "7", 20)) for kind in prose.KINDS}
    assert [text.splitlines()[0] for text in drawn["docstrings"]] == [
        "Module of the sample.",
        "Put a job.",
        "Queue of jobs.",
        "Whatever comes in a second.",
        "Who puts a job into a full queue.",
    ]
    assert drawn["errors"] == ["{told}: no such job; list {len(told)} jobs"]
    assert drawn["test names"] == ["test_full_queue_refuses_a_job"]


def test_sample_of_texts_is_the_same_for_the_same_seed() -> None:
    names = [prose.Text(file="x", line=line, kind="test names", text=f"test_{line}") for line in range(100)]
    first = prose.sample(names, "test names", "7", 10)
    assert len(first) == 10
    assert first == prose.sample(names[::-1], "test names", "7", 10)
    assert first != prose.sample(names, "test names", "8", 10)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a folder with two files, and replace Git by a mock that lists these files and two commits."""
    answers = {"ls-files": "queue.py\0empty.py\0", "log": f"abc Add a queue\ndef {'x' * 80}\n"}
    (tmp_path / "queue.py").write_text(SOURCE)
    (tmp_path / "empty.py").touch()
    monkeypatch.setattr(prose, "REPOSITORY", tmp_path)
    monkeypatch.setattr(
        process, "capture", lambda words, *, cwd: subprocess.CompletedProcess(words, 0, answers[words[1]], "")
    )
    return tmp_path


def test_make_prose_prints_unclear_texts_and_a_sample_and_succeeds(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(Call(target="prose", values={"SEED": "7", "COUNT": "2"})) == 0
    listed, printed = capsys.readouterr().out.split("\nSample of SEED=7")
    assert [line.split(": ")[0] for line in listed.splitlines()][-2:] == ["queue.py:23", "commit def"]
    sections = printed.split("\n\n")[1:]
    assert [section.split("\n")[0] for section in sections] == ["docstrings:", "errors:", "test names:"]
    assert [section.count("\n  queue.py:") for section in sections] == [2, 1, 1]


@pytest.mark.usefixtures("clone")
def test_sample_of_texts_without_a_seed_prints_its_random_seed(capsys: pytest.CaptureFixture[str]) -> None:
    prose.main()
    assert re.search(r"^Sample of SEED=\d+:", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.usefixtures("clone")
def test_make_prose_in_a_folder_that_is_not_a_git_clone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = subprocess.CompletedProcess([], 128, "", "fatal: not a git repository\n")
    monkeypatch.setattr(process, "capture", lambda *_, **__: failure)
    with pytest.raises(
        CallError, match=r"`git ls-files` ended with exit code 128: fatal: not .* repository; run this in a clone"
    ):
        prose.main()
