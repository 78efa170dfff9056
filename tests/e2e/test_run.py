"""Tests of `make run` on both platforms: commands in a new container of a service.

The tests run in file order, from the first deployment to the removal.
"""

import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from .stack import ClusterStack, DockerStack, Stack, create_board, deployment, eventually, repeat_requests

DATABASE = """
import os, socket
password = open(os.environ["DATABASE_PASSWORD_FILE"]).read()
socket.create_connection((os.environ["DATABASE_HOST"], int(os.environ["DATABASE_PORT"])), 5).close()
print(len(password), os.environ["SLOT"], os.getuid() > 0)
"""
SERVE = "python -m http.server 8000 --bind 0.0.0.0"
"""Command that listens on the api's port. Its response differs from the api's, so the test detects a request that reaches it."""


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = create_board(request.param, tmp_path_factory.mktemp("run"), "e2e-run")
    with deployment(stack):
        yield stack


def start(
    stack: Stack, command: str, *, stdin: int | None = None, stdout: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a command in a new container of the api, and return the process on this machine."""
    stack.write()
    return subprocess.Popen(
        [sys.executable, "-m", "ci.one_off", stack.name, "api", command],
        cwd=stack.app_folder, env=stack.variables, stdin=stdin, stdout=stdout, start_new_session=True,
    )  # fmt: skip


def started(stack: Stack) -> list[str]:
    """Return the names of the containers or pods of `make run`, running or not."""
    if isinstance(stack, DockerStack):
        return [str(container.name) for container in stack.containers() if container.labels["tiers.role"] == "run"]
    assert isinstance(stack, ClusterStack)
    return stack.kubectl("get", "pods,jobs", "--selector=tiers.role=run", "--output=name").split()


def replicas(stack: Stack) -> list[str]:
    """Return the lines of the status that count replicas."""
    return [line for line in stack.run_ci("status").splitlines() if "/" in line]


def test_command_runs_with_secrets_and_network_of_the_live_slot_and_leaves_nothing(stack: Stack) -> None:
    before = replicas(stack)
    output = stack.run_ci("one_off", "api", shlex.join(["python", "-c", DATABASE]))
    assert output.split() == [str(len("e2e-database-7c1f")), "blue", "True"]
    eventually(lambda: not started(stack))
    assert replicas(stack) == before


def test_exit_code_of_the_command_is_returned_and_its_container_is_removed(stack: Stack) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        stack.run_ci("one_off", "api", "sh -c 'echo printed; exit 7'")
    assert (failed.value.returncode, failed.value.output) == (7, "printed\n")
    eventually(lambda: not started(stack))


def test_command_gets_the_standard_input(stack: Stack) -> None:
    command = start(stack, "python -c 'print(input()[::-1])'", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert command.communicate(b"abc\n", timeout=180)[0] == b"cba\n"
    assert command.returncode == 0


def test_command_gets_the_terminal(stack: Stack) -> None:
    controller, terminal = pty.openpty()
    command = start(stack, "sh -c 'read line; test -t 0 && echo is-a-$line'", stdin=terminal, stdout=terminal)
    os.close(terminal)
    eventually(lambda: started(stack), 60)
    time.sleep(5)
    os.write(controller, b"terminal\n")
    assert command.wait(timeout=180) == 0
    assert b"is-a-terminal" in os.read(controller, 100_000)


def test_status_lists_the_last_commands_without_their_arguments(stack: Stack) -> None:
    stack.run_ci("one_off", "api", "echo hunter2 'a b'")
    stack.run_ci("container", "database", "psql --version")
    # An update keeps the entries, and they are in no checkpoint.
    assert set(stack.up().changes) == {"unchanged"}
    last = [line for line in stack.run_ci("status").splitlines() if line.startswith(("  run ", "  exec "))][:2]
    assert last[0].split(None, 2)[2].startswith("database: psql, 1 arguments; by ")
    assert last[1].split(None, 2)[2].startswith("api (blue): echo, 2 arguments; by ")
    assert "hunter2" not in stack.pulumi("stack", "tag", "ls", "--json", "--stack", stack.name, check=True).text


def test_no_request_of_users_reaches_the_container(stack: Stack) -> None:
    before = replicas(stack)
    command = start(stack, SERVE, stdout=subprocess.DEVNULL)
    eventually(lambda: started(stack), 60)
    statuses: Counter[str]
    with repeat_requests(lambda _: stack.get("/api/release").status_code, 0.02) as statuses:
        time.sleep(10)
        assert replicas(stack) == before
        assert "through the gateway" in stack.run_ci("check")
    assert set(statuses) == {"200"}, statuses
    # An update does not see the container.
    assert set(stack.up().changes) == {"unchanged"}
    assert command.poll() is None
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait(timeout=60)
    eventually(lambda: not started(stack), 60)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_container_is_removed_if_the_terminal_closes_or_make_is_stopped(stack: Stack, number: signal.Signals) -> None:
    command = start(stack, "sleep 600")
    eventually(lambda: started(stack), 60)
    time.sleep(3)
    os.killpg(command.pid, number)
    assert command.wait(timeout=60)
    eventually(lambda: not started(stack), 60)


def test_data_service_is_refused(stack: Stack) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        stack.run_ci("one_off", "database", "date")
    assert "make exec SERVICE=database" in refused.value.stderr


def test_environment_in_which_a_command_runs_is_removed(stack: Stack) -> None:
    command = start(stack, "sleep 600")
    eventually(lambda: started(stack), 60)
    if stack.environment.get("protect_data"):
        stack.environment["protect_data"] = False
        stack.up()
    time.sleep(3)
    program = f"from ci import heal; heal.remove_one_offs({stack.name!r})"
    subprocess.run([sys.executable, "-c", program], cwd=stack.app_folder, env=stack.variables, check=True)
    assert stack.destroy().code == 0
    assert isinstance(stack, DockerStack | ClusterStack)
    assert stack.leftovers() == []
    assert command.wait(timeout=60)
