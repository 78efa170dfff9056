"""Client of a Docker engine. Only this module imports the engine's SDK."""

from importlib import import_module
from typing import Any
from urllib.parse import urlsplit


def sdk() -> Any:
    """Import and return the SDK (package `docker`). The import happens on the first call, because importing takes a tenth of a second."""
    return import_module("docker")


def connect(host: str, within: float = 10) -> Any:
    """Return a client of the engine at an address; `within` is the timeout in seconds."""
    return sdk().DockerClient(base_url=host, use_ssh_client=True, timeout=within)


def is_local(host: str) -> bool:
    """Return whether the engine at an address runs on this machine."""
    return urlsplit(host).scheme == "unix"


def output_of(connection: Any) -> str:
    """Wait until a command in a container ends, and return its output. `connection` is the socket of the command."""
    frames: Any = import_module("docker.utils.socket").frames_iter(connection, tty=False)
    return b"".join(part for _, part in frames).decode(errors="replace").strip()
