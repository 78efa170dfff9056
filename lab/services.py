"""Processes that the lab starts, tracked by pid files, and Debian packages that it installs."""

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

# Folders of Debian's programs, CNI's plugins among them.
PROGRAMS = f"{os.defpath}:/usr/sbin:/sbin:/usr/lib/cni"
APT = threading.Lock()


def pid_file(name: str) -> Path:
    """Return the file with the process id of a started process."""
    return CACHE / "run" / f"{name}.pid"


def ours(name: str) -> int | None:
    """Return the id of a process that the lab started, if it still runs this program."""
    try:
        pid = int(pid_file(name).read_text())
        return pid if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (OSError, ValueError):
        return None


def start(name: str, *command: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one; its command must contain `name`."""
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
    """Wait until a started process is ready.

    Raises:
        LabError: the process ended, or is not ready in time; the message has the end of its log.
    """
    deadline = time.monotonic() + seconds
    pid = int(pid_file(name).read_text())
    while not ready():
        if not running(pid) or time.monotonic() > deadline:
            tail = (LOGS / f"{name}.log").read_text(errors="replace").splitlines()[-10:]
            raise LabError(f"{name} does not answer; the end of its log:\n    " + "\n    ".join(tail))
        time.sleep(0.2)


def end(name: str, patience: int = 30) -> None:
    """Stop a process that the lab started, if it runs, and kill it after `patience` seconds."""
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
    """Tell whether a process runs. A zombie does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def packages(name: str, wanted: Mapping[str, str], else_do: str) -> Step:
    """Return a step that installs Debian packages; `wanted` is program → package, and only missing programs count."""
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
    # The package's own service would run beside the lab's. policy-rc.d is Debian's way to prevent its start.
    policy = Path("/usr/sbin/policy-rc.d")
    with APT:
        is_created = not policy.exists()
        if is_created:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            sh("apt-get", *options, "update", log=log, env=env)
            sh("apt-get", *options, "install", "-y", "--no-install-recommends", *lacking, log=log, env=env)
        finally:
            if is_created:
                policy.unlink()
