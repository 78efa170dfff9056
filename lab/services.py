"""What the lab starts on this machine, by pid files of its own, and the Debian packages it comes from."""

import os
import platform
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .steps import CACHE, LOGS, LabError, Step, sh

# Where Debian puts programs, CNI's plugins among them.
PROGRAMS = f"{os.defpath}:/usr/sbin:/sbin:/usr/lib/cni"
APT = threading.Lock()


def pid_file(name: str) -> Path:
    """Where the id of a process that the lab started is kept."""
    return CACHE / "run" / f"{name}.pid"


def ours(name: str) -> int | None:
    """The id of the process the lab started, if it is still that program."""
    try:
        pid = int(pid_file(name).read_text())
        return pid if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (OSError, ValueError):
        return None


def start(name: str, *command: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one; `name` must be somewhere in its command."""
    LOGS.mkdir(parents=True, exist_ok=True)
    pid_file(name).parent.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=env,
        )
    pid_file(name).write_text(str(process.pid))
    return process


def wait_for(name: str, ready: Callable[[], object], seconds: int = 60) -> None:
    """Wait until what was started answers.

    Raises:
        LabError: it ended, or does not answer in time; with the end of its log.
    """
    deadline = time.monotonic() + seconds
    pid = int(pid_file(name).read_text())
    while not ready():
        if not running(pid) or time.monotonic() > deadline:
            tail = (LOGS / f"{name}.log").read_text(errors="replace").splitlines()[-10:]
            raise LabError(f"{name} does not answer; the end of its log:\n    " + "\n    ".join(tail))
        time.sleep(0.2)


def end(name: str, patience: int = 30) -> None:
    """End the process the lab started, if it runs; one that does not end in so many seconds is killed."""
    if pid := ours(name):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while running(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        if running(pid):
            os.kill(pid, signal.SIGKILL)
        print(f"  stopped {name} ({pid})")
    pid_file(name).unlink(missing_ok=True)


def running(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet asked for its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def packages(name: str, wanted: Mapping[str, str], else_do: str) -> Step:
    """A step that installs Debian packages, each where the program it is wanted for is missing."""
    return Step(
        name=name,
        takes="30 s",
        present=lambda: None if _lacking(wanted) else ", ".join(dict.fromkeys(wanted.values())),
        run=lambda: _install(_lacking(wanted), name.replace(" ", "-"), else_do),
    )


def _lacking(wanted: Mapping[str, str]) -> list[str]:
    return [package for binary, package in wanted.items() if not shutil.which(binary, path=PROGRAMS)]


def _install(lacking: list[str], log: str, else_do: str) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
        raise LabError(else_do.format(system=system))
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ("-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=300")
    # A package's own service would start a second one beside the lab's; policy-rc.d is how Debian says no.
    policy = Path("/usr/sbin/policy-rc.d")
    with APT:
        mine = not policy.exists()
        if mine:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            sh("apt-get", *options, "update", log=log, env=env)
            sh("apt-get", *options, "install", "-y", "--no-install-recommends", *lacking, log=log, env=env)
        finally:
            if mine:
                policy.unlink()
