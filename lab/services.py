"""Functions that start, find and stop the lab's processes by their pid files, and that install Debian packages."""

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

# Folders of Debian's programs, including CNI's plugins.
PROGRAMS = f"{os.defpath}:/usr/sbin:/sbin:/usr/lib/cni"
APT = threading.Lock()


def pid_file(name: str) -> Path:
    """Return the path of the file that stores the process id of a process."""
    return CACHE / "run" / f"{name}.pid"


def lab_process(name: str) -> int | None:
    """Return the id of a process that the lab started, or None if the process has ended.

    A process counts only if its command line contains `name`, because the system may have reused the id.
    """
    try:
        pid = int(pid_file(name).read_text())
        return pid if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (OSError, ValueError):
        return None


def start(name: str, *command: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process that continues after this program ends. `lab_process` finds the process if its command line contains `name`."""
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


def wait_for(name: str, ready: Callable[[], object], seconds: int = 180) -> None:
    """Wait until a started process is ready.

    Raises:
        LabError: the process ended, or is not ready in time. The message contains the end of the process's log.
    """
    deadline = time.monotonic() + seconds
    pid = int(pid_file(name).read_text())
    while not ready():
        if not running(pid) or time.monotonic() > deadline:
            tail = (LOGS / f"{name}.log").read_text(errors="replace").splitlines()[-10:]
            raise LabError(f"{name} does not answer; the end of its log:\n    " + "\n    ".join(tail))
        time.sleep(0.2)


def stop_process(name: str, patience: int = 30) -> None:
    """Stop a process that the lab started. Kill it if it still runs after `patience` seconds."""
    if pid := lab_process(name):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while running(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        if running(pid):
            os.kill(pid, signal.SIGKILL)
        print(f"  stopped {name} ({pid})")
    pid_file(name).unlink(missing_ok=True)


def running(pid: int) -> bool:
    """Return True if a process runs. A zombie process does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def packages(name: str, programs: Mapping[str, str], unsupported: str) -> Step:
    """Return a step that installs the Debian packages of missing programs.

    Args:
        name: name of the step.
        programs: program → its Debian package.
        unsupported: error message for a system without apt-get or without root; `{system}` is the name of the system.
    """
    return Step(
        name=name,
        takes="30 s",
        present=lambda: None if _missing_packages(programs) else ", ".join(dict.fromkeys(programs.values())),
        run=lambda: _install(_missing_packages(programs), name.replace(" ", "-"), unsupported),
    )


def _missing_packages(programs: Mapping[str, str]) -> list[str]:
    return [package for binary, package in programs.items() if not shutil.which(binary, path=PROGRAMS)]


def _install(missing: list[str], log: str, unsupported: str) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
        raise LabError(unsupported.format(system=system))
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ("-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=300")
    # The installation of a package would also start the package's service, next to the lab's process. policy-rc.d
    # prevents this.
    policy = Path("/usr/sbin/policy-rc.d")
    with APT:
        is_created = not policy.exists()
        if is_created:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            sh("apt-get", *options, "update", log=log, env=env)
            sh("apt-get", *options, "install", "-y", "--no-install-recommends", *missing, log=log, env=env)
        finally:
            if is_created:
                policy.unlink()
