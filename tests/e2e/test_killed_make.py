"""`make up` is killed with every signal at every process that it starts: the next `make up` succeeds, and users notice nothing."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .stack import Stack, deployed, flowing, on

PROCESSES = {
    "make": r"^make up",
    "runner": r" -m ci up",
    "pulumi": r"^pulumi up",
    "language host": r"pulumi-language-python \S+:\d+",
    "program": r"pulumi-language-python-exec",
    "provider": r"pulumi-resource-docker",
}
SIGNALS = ("SIGHUP", "SIGTERM", "SIGINT", "SIGKILL")
TELLING = ("terminal", "SIGHUP")
"""A lost connection: the signal reaches all processes of the terminal. This case is in the short run."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deploy only the board's pages: enough to see a release, and quick to deploy."""
    board = on("docker", tmp_path_factory.mktemp("killed"), "e2e-killed-make")
    for name in ("api", "worker", "database", "cache", "visits", "figures"):
        board.app.pop(name, None)
    with deployed(board):
        yield board


def make(stack: Stack, log: Path) -> subprocess.Popen[bytes]:
    """Start `make up` as the first process of a session. The policy is off, because it requires more replicas than this test needs."""
    stack.write()
    with log.open("wb") as output:
        return subprocess.Popen(
            ["make", "up", f"ENV={stack.name}", "POLICY="], cwd=stack.folder, env=stack.variables,
            stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def below(root: int) -> dict[int, str]:
    """Return the command lines of a process and of all its descendants, by process id."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            pass  # The process has ended meanwhile.
    family = {root}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return {process: commands[process] for process in family if process in commands}


def begins(log: Path, make: subprocess.Popen[bytes]) -> None:
    """Wait until the update creates something in the idle slot."""
    deadline = time.monotonic() + 300
    while not re.search(r"(blue|green)\S* creating", log.read_text()):
        assert make.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("process", "number"),
    [
        TELLING,
        *(pytest.param(name, signal_name, marks=pytest.mark.long) for name in PROCESSES for signal_name in SIGNALS),
    ],
    ids=lambda value: str(value).replace(" ", "-"),
)
def test_make_up_succeeds_after_a_killed_one(stack: Stack, tmp_path: Path, process: str, number: str) -> None:
    stack.app["version"] = f"1.0.{time.time_ns() // 10**9}"
    log = tmp_path / "up.log"
    with flowing(lambda _: stack.get("/").status_code, 0.1) as seen:
        first = make(stack, log)
        begins(log, first)
        if process == "terminal":
            os.killpg(first.pid, signal.Signals[number])
        else:
            processes = [pid for pid, command in below(first.pid).items() if re.search(PROCESSES[process], command)]
            for pid in processes:
                os.kill(pid, signal.Signals[number])
        first.wait(timeout=200)
        # A stopped engine may take its time; the next make does not depend on processes that outlive it.
        again = tmp_path / "again.log"
        deadline = time.monotonic() + 300
        while (second := make(stack, again)).wait(timeout=400):
            # A killed `make` does not end its runner, which finishes the update.
            assert re.search("is being updated by|another make is at work", again.read_text()), again.read_text()
            assert time.monotonic() < deadline
            time.sleep(2)
        assert second.returncode == 0
    assert stack.answers().startswith(f"{stack.app['version']}-")
    assert set(seen) == {"200"}, seen
    assert seen["200"] > 10
