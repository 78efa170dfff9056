"""Tests of the runner of make targets: lock, child processes, required parts of the lab, errors, and URL check."""

import fcntl
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ci import command_line, lab_parts, lock, make_call, process

ROOT = Path(__file__).parents[2]
LOCK_HOLDER = """
import subprocess, sys, time
from pathlib import Path
from ci import lock
with lock.hold(Path(sys.argv[1]), "make up", "dev"):
    subprocess.Popen(["sleep", "60"], close_fds=False)  # Like a provider that outlives its engine.
    print("held", flush=True)
    time.sleep(60)
"""


def start_lock_holder(file: Path) -> subprocess.Popen[str]:
    """Start a lock holder with a child process that continues after the lock holder is killed."""
    holder = subprocess.Popen([sys.executable, "-c", LOCK_HOLDER, file], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    return holder


def kill_process_group(holder: subprocess.Popen[str]) -> None:
    """Kill the lock holder and its child process."""
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()


def test_error_about_a_locked_stack_names_the_process_that_holds_the_lock_and_its_start_time(tmp_path: Path) -> None:
    holder = start_lock_holder(tmp_path / "dev.lock")
    try:
        with (
            pytest.raises(lock.LockedError) as error,
            lock.hold(tmp_path / "dev.lock", "make down", "dev"),
        ):
            pass
    finally:
        kill_process_group(holder)
    message = str(error.value)
    assert message.startswith("another make command uses stack dev in this folder: `make up`, process ")
    assert f"process {holder.pid} of " in message
    assert ", since 20" in message


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_lock_of_a_killed_process_is_free_although_its_child_process_still_runs(
    tmp_path: Path, number: signal.Signals
) -> None:
    holder = start_lock_holder(tmp_path / "dev.lock")
    try:
        holder.send_signal(number)
        holder.wait(timeout=60)
        with lock.hold(tmp_path / "dev.lock", "make up", "dev"):
            assert json.loads((tmp_path / "dev.lock").read_text())["pid"] == os.getpid()
    finally:
        kill_process_group(holder)


def test_stack_lock_inherited_by_the_child_of_a_dead_process_can_be_taken(tmp_path: Path) -> None:
    """Check a lock of an earlier version of the runner, in which child processes inherited the lock."""
    file = tmp_path / "dev.lock"
    current = lock.Holder.current("make up")
    file.write_text(json.dumps(vars(current) | {"started": "1"}))
    with file.open() as inherited:
        fcntl.flock(inherited, fcntl.LOCK_EX)
        with lock.hold(file, "make up", "dev"):
            assert json.loads(file.read_text())["started"] == current.started


def test_stack_that_an_unknown_process_has_locked_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "dev.lock"
    with file.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(lock.LockedError, match="another make command uses stack dev in this folder"),
            lock.hold(file, "x", "dev"),
        ):
            pass


def test_stack_lock_holder_on_another_machine_counts_as_alive() -> None:
    other = lock.Holder(pid=1, started="0", host="elsewhere", user="u", command="make up", since="now")
    assert not other.is_dead


# ---------------------------------------------------------------------- processes


RUN = """
import signal, sys
from ci import process
# Restore the default signal handlers, because a shell ignores these signals in background processes.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
process.undo_when_stopped("up")
try:
    sys.exit(process.run(sys.argv[1:]))
except KeyboardInterrupt:
    sys.exit(130)
"""
ENGINE = """
import signal, sys, time
interrupts = []
signal.signal(signal.SIGINT, lambda *_: interrupts.append(1))
print("begun", flush=True)
while not interrupts:
    time.sleep(0.05)
print("ended in order", flush=True)
"""


def runner(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_runner_that_receives_a_signal_interrupts_the_command_and_waits_for_its_end(number: signal.Signals) -> None:
    """Check that the runner sends an interrupt to the command, and waits until the command has ended.

    The test sends the signal to the runner's whole process group, as a terminal does when it is closed.
    """
    command = runner(sys.executable, "-c", ENGINE)
    assert command.stdout
    assert command.stdout.readline() == "begun\n"
    os.killpg(command.pid, number)
    out, err = command.communicate(timeout=120)
    assert out == "ended in order\n"
    assert command.returncode == (130 if number == signal.SIGINT else 1)
    assert (number.name in err) == (number != signal.SIGINT)


def test_command_is_interrupted_if_its_runner_is_killed(tmp_path: Path) -> None:
    marker_file = tmp_path / "sign"
    command = runner(sys.executable, "-c", ENGINE + f"open({str(marker_file)!r}, 'w').close()")
    assert command.stdout
    assert command.stdout.readline() == "begun\n"
    command.kill()
    deadline = time.monotonic() + 60
    while not marker_file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marker_file.exists()
    command.communicate(timeout=60)


def test_command_continues_after_its_output_pipe_was_closed(tmp_path: Path) -> None:
    marker_file = tmp_path / "sign"
    script = f"import time\nfor n in range(40): print(n, flush=True); time.sleep(0.02)\nopen({str(marker_file)!r}, 'w').close()"
    command = runner(sys.executable, "-c", script)
    assert command.stdout
    command.stdout.readline()
    command.stdout.close()
    assert command.wait(timeout=120) == 0
    assert marker_file.exists()


def test_runner_passes_on_the_output_and_the_exit_code_of_a_command(tmp_path: Path) -> None:
    command = runner("sh", "-c", "echo out; echo err >&2; exit 3")
    out, err = command.communicate(timeout=120)
    assert (out, err, command.returncode) == ("out\n", "err\n", 3)
    copy = tmp_path / "reports" / "copy.txt"
    assert process.run(["sh", "-c", "echo out; echo err >&2"], copy=copy) == 0
    assert sorted(copy.read_text().splitlines()) == ["err", "out"]


def test_captured_command_gets_a_text_as_its_standard_input() -> None:
    assert process.capture(["cat"], text="päss word").stdout == "päss word"
    assert process.capture(["cat"]).stdout == ""


def test_command_that_replaces_its_runner_gets_the_standard_input_and_sets_the_exit_code() -> None:
    program = 'from ci import process; print("before"); process.exec_command(["sh", "-c", "cat; exit 3"])'
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, input="a line", capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("before\na line", 3)


def test_killed_command_is_reported_with_its_signal() -> None:
    command = runner("sh", "-c", "kill -KILL $$")
    _, err = command.communicate(timeout=120)
    assert command.returncode == 1
    assert err == "sh was killed (signal SIGKILL); run the same command again: it first cleans up\n"


# ---------------------------------------------------------------------- parts of the lab


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({"platform": "docker"}, ["dev"]),
        ({"platform": "docker", "monitoring": True}, ["dev", "monitoring"]),
        ({"platform": "docker", "monitoring": {"port": 1}}, ["dev", "monitoring"]),
        ({"platform": "docker", "monitoring": False}, ["dev"]),
        ({"platform": "docker", "kubernetes": {"context": "lab"}}, ["dev"]),
        ({"platform": "kubernetes", "kubernetes": {"context": "other"}}, ["provider"]),
        ({"platform": "kubernetes"}, ["provider"]),
        ({"platform": "kubernetes", "kubernetes": {"context": "lab"}}, ["cluster"]),
        ({"platform": "kubernetes", "kubernetes": {"context": "lab"}, "monitoring": True}, ["cluster", "operator"]),
        ({"platform": "kubernetes", "kubernetes": {"context": "lab"}, "tiers": {"database": {"ha": True}}}, ["cluster", "data"]),
        ({"platform": "kubernetes", "kubernetes": {"context": "lab"}, "tiers": {"database": {"ha": True, "backup": {"target": {"s3": {}}}}}}, ["cluster", "archive"]),
        ({"platform": [], "kubernetes": 5, "tiers": "x", "monitoring": None}, ["dev"]),
        ({"platform": "kubernetes", "kubernetes": [], "tiers": []}, ["provider"]),
    ],
)  # fmt: skip
def test_required_parts_of_the_lab_depend_on_the_environment_settings(
    environment: dict[str, Any], parts: list[str]
) -> None:
    assert lab_parts.required_parts(environment) == parts


@pytest.mark.parametrize(
    ("text", "first_part"),
    [
        ('    platform: "kubernetes"\n    kubernetes: {context: lab}\n', "cluster"),
        ("    platform: docker # not platform: kubernetes, context: lab\n", "dev"),
        ("    platform: docker\n    tiers: {api: {env: {TEXT: 'platform: kubernetes'}}}\n", "dev"),
        ("    kubernetes:\n      context: 'lab'\n    platform: kubernetes\n", "cluster"),
    ],
)  # fmt: skip
def test_platform_and_secrets_provider_are_read_from_the_stack_file_as_yaml(
    tmp_path: Path, text: str, first_part: str
) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: x\nconfig: {app: {value: {}}}\n")
    (tmp_path / "Pulumi.t.yaml").write_text(f"secretsprovider: $(touch /tmp/pwned)\nconfig:\n  x:environment:\n{text}")
    command = make_call.Call(target="up", values={"APP": str(tmp_path), "ENV": "t"})
    assert lab_parts.lab_parts(command)[0] == first_part
    assert lab_parts.secrets_provider(command) == "$(touch /tmp/pwned)"


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "pulumi"), "pulumi is not on PATH; run `make lab`, or install pulumi"),
        (FileNotFoundError(2, "No such file or directory", "a/b.yaml"), "a/b.yaml: No such file or directory"),
        (subprocess.CalledProcessError(3, ["pulumi", "config", "set", "secret"]), "`pulumi config set` ended with exit code 3: see above"),
        (subprocess.TimeoutExpired(["k6"], 5), "`k6` did not end within 5 s"),
        (RecursionError(), "a file is nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "a file is not UTF-8 text"),
        (json.JSONDecodeError("Expecting value", "", 0), "a file or a response is not JSON"),
    ],
)  # fmt: skip
def test_expected_error_of_a_make_target_is_reported_in_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert command_line.attempt("status", fail) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"status: {line}")
    assert message.count("\n") == 1


def test_unexpected_error_of_a_make_target_is_reported_in_one_line_with_the_file_of_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "LOGS", tmp_path)
    assert command_line.attempt("status", lambda: {}["key"]) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    [details] = tmp_path.iterdir()
    assert str(details) in message
    assert "Traceback" in details.read_text()
    assert details.stat().st_mode & 0o777 == 0o600


# ---------------------------------------------------------------------- final check


@contextmanager
def serve(**statuses: int) -> Generator[str]:
    """Serve HTTP on a free port, and yield the URL.

    Args:
        statuses: HTTP status by the last part of the path (`home` for `/`). All other paths return 404.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.get(self.path.rpartition("/")[2] or "home", 404))
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"ok\n")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("visits", "statuses", "problem"),
    [
        (None, {"home": 200}, ""),
        (None, {"home": 302}, ""),
        (None, {"home": 404}, ""),
        (None, {"home": 500}, "/ answers 500, 3 bytes"),
        (None, {"home": 503}, "/ answers 503, 3 bytes"),
        (["/", "/a"], {"home": 200, "a": 200}, ""),
        (["/", "/a"], {"home": 200, "a": 502}, "/a answers 502"),
        (["/a"], {"home": 500, "a": 200}, ""),
        (["/a"], {"home": 200}, "/a answers 404"),
    ],
)  # fmt: skip
def test_url_check_after_make_up_fails_if_the_application_answers_with_an_error(
    visits: list[str] | None,
    statuses: dict[str, int],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pulumi import RunError

    from ci import url_check
    from components.config import load_app

    monkeypatch.setattr(url_check, "PATIENCE", 0.5)
    app = load_app(
        {"name": "x", "version": "1", "api": {"image": "x:1", "port": 8000}} | ({"visits": visits} if visits else {})
    )
    with serve(**statuses) as url:
        if problem:
            with pytest.raises(RunError, match=problem):
                url_check.check(url, app, "dev")
        else:
            url_check.check(url, app, "dev")
            assert " answers " in capsys.readouterr().err
    with pytest.raises(RunError, match=r"does not answer: .*refused"):
        url_check.check(url, app, "dev")


@pytest.mark.parametrize(("status", "problem"), [(200, ""), (404, ""), (503, "/a answers 503")])
def test_url_check_requests_the_first_path_of_a_service_with_a_host_of_its_own(
    status: int, problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pulumi import RunError

    from ci import url_check
    from components.config import load_app

    monkeypatch.setattr(url_check, "PATIENCE", 0.5)
    web = {"image": "x:1", "port": 8000}
    admin = {"tier": "web", **web, "host": "admin", "paths": ["/a"]}
    app = load_app({"name": "x", "version": "1", "web": web, "services": {"admin": admin}})
    with serve(a=status) as url:
        if problem:
            with pytest.raises(RunError, match=problem):
                url_check.check_service(url, app, "admin", "dev")
        else:
            url_check.check_service(url, app, "admin", "dev")
            assert f"{url}/a answers {status}" in capsys.readouterr().err
