"""Client of a Docker engine. Only this module imports the engine's SDK."""

import io
import tarfile
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit


def sdk() -> Any:
    """Return the SDK, the package `docker`. The first call imports the package, because the import takes 0.1 s."""
    return import_module("docker")


def connect(host: str, within: float = 10) -> Any:
    """Return a client of the engine at the address `host`. `within` is the timeout of a request, in seconds."""
    return sdk().DockerClient(base_url=host, use_ssh_client=True, timeout=within)


def is_local(host: str) -> bool:
    """Return True if the address `host` is a local socket: the engine runs on this machine."""
    return urlsplit(host).scheme == "unix"


def output_of(connection: Any) -> str:
    """Read the output of a command in a container until the command ends. `connection` is the socket of the command."""
    frames: Any = import_module("docker.utils.socket").frames_iter(connection, tty=False)
    return b"".join(part for _, part in frames).decode(errors="replace").strip()


def read_files(container: Any, folder: str) -> dict[str, str]:
    """Return the files in a folder of a container, and in the folders below it: path relative to `folder` → text.

    No program runs in the container, so the image needs none.
    """
    archive, _ = container.get_archive(folder)
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as files:
        members = [member for member in files.getmembers() if member.isfile()]
        return {
            member.name.partition("/")[2]: content.read().decode(errors="replace").strip()
            for member in members
            if (content := files.extractfile(member))
        }
