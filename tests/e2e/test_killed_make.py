"""Tests that interrupt `make up` by a signal. The next `make up` must succeed, and no request may be lost.

The signal goes to one process of `make up`. In the case of a closed terminal, all processes of `make up` receive SIGHUP.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .stack import Stack, create_board, deployment, repeat_requests

PROCESSES = {
    "make": r"^make up",
    "runner": r" -m ci up",
    "pulumi": r"^pulumi up",
    "language host": r"pulumi-language-python \S+:\d+",
    "program": r"pulumi-language-python-exec",
    "provider": r"pulumi-resource-docker",
}
SIGNALS = ("SIGHUP", "SIGTERM", "SIGINT", "SIGKILL")
LOST_TERMINAL = ("terminal", "SIGHUP")
"""Test case of a closed terminal: all processes of the terminal receive SIGHUP. All other cases have the pytest marker `long`."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deploy only the web tier of the board, to shorten the deployment."""
    board = create_board("docker", tmp_path_factory.mktemp("killed"), "e2e-killed-make")
    for name in ("api", "worker", "database", "cache", "visits", "figures"):
        board.app.pop(name, None)
    with deployment(board):
        yield board


def start_make(stack: Stack, log: Path) -> subprocess.Popen[bytes]:
    """Start `make up` in a new session. Turn off the policy, because the policy requires more replicas than this test has."""
    stack.write()
    with log.open("wb") as output:
        return subprocess.Popen(
            ["make", "up", f"ENV={stack.name}", "POLICY="], cwd=stack.folder, env=stack.variables,
            stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def process_tree(root: int) -> dict[int, str]:
    """Return process id → command line of a process and all its descendants."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            pass  # The process ended after its folder in /proc was found.
    tree = {root}
    while more := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return {process: commands[process] for process in tree if process in commands}


def wait_for_creation(log: Path, make: subprocess.Popen[bytes]) -> None:
    """Wait until the update creates an object of a slot."""
    deadline = time.monotonic() + 300
    while not re.search(r"(blue|green)\S* creating", log.read_text()):
        assert make.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("process", "signal_name"),
    [
        LOST_TERMINAL,
        *(pytest.param(name, signal_name, marks=pytest.mark.long) for name in PROCESSES for signal_name in SIGNALS),
    ],
    ids=lambda value: str(value).replace(" ", "-"),
)
def test_make_up_succeeds_after_another_make_up_was_killed(
    stack: Stack, tmp_path: Path, process: str, signal_name: str
) -> None:
    stack.app["version"] = f"1.0.{time.time_ns() // 10**9}"
    log = tmp_path / "up.log"
    with repeat_requests(lambda _: stack.get("/").status_code, 0.1) as statuses:
        first = start_make(stack, log)
        wait_for_creation(log, first)
        if process == "terminal":
            os.killpg(first.pid, signal.Signals[signal_name])
        else:
            processes = [
                pid for pid, command in process_tree(first.pid).items() if re.search(PROCESSES[process], command)
            ]
            for pid in processes:
                os.kill(pid, signal.Signals[signal_name])
        first.wait(timeout=200)
        # Processes of the killed make may still run, and then `make up` is refused. Repeat `make up` until these processes have ended.
        second_log = tmp_path / "again.log"
        deadline = time.monotonic() + 300
        while (second := start_make(stack, second_log)).wait(timeout=400):
            # If only `make` was killed, the process `python -m ci up` continues the update.
            assert re.search("is being updated by|another make command uses stack", second_log.read_text()), (
                second_log.read_text()
            )
            assert time.monotonic() < deadline
            time.sleep(2)
        assert second.returncode == 0
    assert stack.serving_release().startswith(f"{stack.app['version']}-")
    assert set(statuses) == {"200"}, statuses
    assert statuses["200"] > 10
