"""A second, empty Docker engine beside the first, removed afterwards."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lab import engine as lab_engine


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def another_engine(folder: Path, number: int) -> Generator[str]:
    """Run an engine with its own socket, data, bridge and addresses, and yield its address.

    The name of `folder` must be short enough for a socket below it.
    """
    bridge, where = f"tiers-e2e{number}", folder / "engine.sock"
    subprocess.run(["ip", "link", "delete", bridge], capture_output=True)  # of a run that was killed
    run("ip", "link", "add", "name", bridge, "type", "bridge")
    process = None
    try:
        run("ip", "addr", "add", f"10.21{number}.0.1/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        pool = f"base=10.21{number}.64.0/18,size=24"
        more = ("--bridge", bridge, "--default-address-pool", pool, "--iptables=true")
        process = lab_engine.start_engine(folder / "root", where, *more, name=f"dockerd-e2e{number}")
        yield f"unix://{where}"
    finally:
        if process:
            process.terminate()
            process.wait(timeout=60)
        lab_engine.forget(f"dockerd-e2e{number}")
        run("ip", "link", "delete", bridge)
