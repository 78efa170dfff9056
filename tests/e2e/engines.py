"""Temporary Docker engines for tests, in addition to the machine's own engine."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lab import engine as lab_engine


def run(*command: str) -> None:
    """Run a command.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def run_engine(folder: Path, number: int) -> Generator[str]:
    """Run an empty engine with its own socket, data, bridge and IP addresses, and yield the address of the engine.

    The path of `folder` must be short, because the path of a Unix socket is limited to 107 bytes.
    """
    bridge, socket_path = f"tiers-e2e{number}", folder / "engine.sock"
    subprocess.run(["ip", "link", "delete", bridge], capture_output=True)  # A killed run may have left the bridge.
    run("ip", "link", "add", "name", bridge, "type", "bridge")
    process = None
    try:
        run("ip", "addr", "add", f"10.21{number}.0.1/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        pool = f"base=10.21{number}.64.0/18,size=24"
        options = ("--bridge", bridge, "--default-address-pool", pool, "--iptables=true")
        process = lab_engine.start_engine(folder / "root", socket_path, *options, name=f"dockerd-e2e{number}")
        yield f"unix://{socket_path}"
    finally:
        if process:
            process.terminate()
            process.wait(timeout=60)
        lab_engine.delete_pid_file(f"dockerd-e2e{number}")
        run("ip", "link", "delete", bridge)
