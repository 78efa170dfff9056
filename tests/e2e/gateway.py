"""A gateway on the local engine without Pulumi: its image, its start command, claims by the toolbox, and the tiers of a slot."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
from docker.errors import ContainerError, NotFound

from components.config import TierName
from components.platforms import haproxy
from components.platforms.docker import GATEWAY_USER, TOOLBOX
from components.release import Slot
from components.workload import Route

from .leftovers import LABEL
from .stack import eventually, free_port

IMAGE, PYTHON = "haproxy:2.6-bookworm", "python:3.11-slim-bookworm"
APP = Path(__file__).with_name("app.py").read_text()
"""Application that decodes paths and merges their slashes, as frameworks do, and answers /metrics."""


class Gateway:
    """A gateway without a stack. Tiers are containers with the network names that the program gives them, as `api-blue`."""

    def __init__(self, name: str) -> None:
        self.name, self.port, self.alone = name, free_port(), free_port()
        self.engine: Any = docker.from_env()
        self.network = self.engine.networks.create(name, labels={LABEL: name})
        self.engine.volumes.create(name, labels={LABEL: name})
        self.container = self.engine.containers.run(
            IMAGE, ["sh", "-c", haproxy.START], name=name, detach=True, network=name, user=f"{GATEWAY_USER}",
            environment={"CONFIG": haproxy.FIRST}, volumes={name: {"bind": haproxy.FOLDER}}, labels={LABEL: name},
            ports={f"{haproxy.PORT}/tcp": ("127.0.0.1", self.port),
                   f"{haproxy.PORTS[TierName.API]}/tcp": ("127.0.0.1", self.alone)},
            restart_policy={"Name": "unless-stopped"},
        )  # fmt: skip

    def run(self, slot: Slot, *routes: Route) -> None:
        """Replace the containers of a slot."""
        for route in routes:
            name = f"{route.tier}-{slot}"
            self._remove(f"{self.name}-{name}")
            config = self.engine.api.create_networking_config(
                {self.name: self.engine.api.create_endpoint_config(aliases=[name])}
            )
            container = self.engine.api.create_container(
                PYTHON, ["python3", "-u", "-c", APP], name=f"{self.name}-{name}", networking_config=config,
                environment={"PORT": str(route.port), "ANSWER": name}, labels={LABEL: self.name},
            )  # fmt: skip
            self.engine.api.start(container["Id"])

    def tool(self, *words: str) -> str:
        """Run the toolbox in the gateway's volume.

        Raises:
            ContainerError: it ends with an error.
        """
        output = self.engine.containers.run(
            PYTHON, ["python3", "-c", TOOLBOX, *words], remove=True, user=f"{GATEWAY_USER}", network_mode="none",
            volumes={self.name: {"bind": haproxy.FOLDER}}, labels={LABEL: self.name}, stderr=True,
        )  # fmt: skip
        return output.decode().strip()

    def claim(self, slot: Slot, slots: Mapping[Slot, Sequence[Route]], within: str = "60") -> str:
        """Give a slot its routes, as a release does before its tiers run."""
        text = haproxy.configuration(slots, [TierName.API])
        self.check(text)
        return self.tool("route", haproxy.FOLDER, within, str(slot), f"1-{slot}", text)

    def check(self, text: str) -> None:
        """Check a configuration with the gateway's image.

        Raises:
            ContainerError: the image refuses it.
        """
        self.engine.containers.run(
            IMAGE, ["sh", "-c", haproxy.CHECK], remove=True, user=f"{GATEWAY_USER}", environment={"CONFIG": text},
            network_mode="none", tmpfs={haproxy.FOLDER: f"uid={GATEWAY_USER}"}, labels={LABEL: self.name}, stderr=True,
        )  # fmt: skip

    def switch(self, slot: Slot) -> None:
        self.tool("route", haproxy.FOLDER, "30", "live", str(slot))

    def ask(self, path: bytes, port: int | None = None, *headers: str) -> tuple[int, bytes]:
        """Send a request whose path is not changed by a client library. Status 0 means no answer."""
        return raw(port or self.port, path, "localhost", *headers)

    def live(self) -> Slot:
        """Return the slot that receives new requests."""
        entries = dict(line.split() for line in self.file("live.map").splitlines())
        return Slot(entries["live"])

    def serves(self, slot: Slot, *tiers: str, seconds: float = 30) -> None:
        """Wait until tiers of a slot answer through the gateway."""
        header = f"{haproxy.SLOT_HEADER}: {slot}"
        eventually(
            lambda: {self.ask(f"/.gateway/{tier}".encode(), None, header)[0] for tier in tiers} == {200}, seconds
        )

    def file(self, name: str) -> str:
        return self.engine.containers.run(
            PYTHON, ["cat", f"{haproxy.FOLDER}/{name}"], remove=True, volumes={self.name: {"bind": haproxy.FOLDER}}
        ).decode()

    def log(self) -> list[str]:
        return self.container.logs().decode(errors="replace").splitlines()

    def _remove(self, name: str) -> None:
        with suppress(NotFound):
            self.engine.api.remove_container(name, force=True)

    def close(self) -> None:
        for container in self.engine.containers.list(all=True, filters={"label": f"{LABEL}={self.name}"}):
            container.remove(force=True)
        self.network.remove()
        self.engine.volumes.get(self.name).remove(force=True)


HIDDEN = [
    b"/metrics",
    b"//metrics",
    b"/./metrics",
    b"/x/../metrics",
    b"/metrics/",
    b"/metrics?a=b",
    b"/%6detrics",
    b"/%2e/metrics",
    b"/x/%2e%2e/metrics",
    b"/%2Fmetrics",
    b"/.%2fmetrics",
    b"/x%2f..%2Fmetrics",
    b"/x%2F../metrics",
    b"/metrics%2Fx",
]
"""Spellings of /metrics that applications read as that path."""


def raw(port: int, path: bytes, host: str, *headers: str) -> tuple[int, bytes]:
    """Send a request to this machine, byte by byte. Status 0 means no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            lines = "".join(f"{header}\r\n" for header in (f"Host: {host}", "Connection: close", *headers)).encode(
                "latin-1"
            )
            client.sendall(b"GET " + path + b" HTTP/1.1\r\n" + lines + b"\r\n")
            answer = b""
            while part := client.recv(65536):
                answer += part
    except OSError:
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


@contextmanager
def users(gateway: Gateway, path: bytes = b"/api/x") -> Generator[Counter[str]]:
    """Send requests of two users, each over one open connection, and count the answers by status."""
    seen: Counter[str] = Counter()
    done = threading.Event()

    def flow() -> None:
        connection: socket.socket | None = None
        while not done.wait(0.003):
            try:
                if not connection:
                    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
                connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = connection.recv(65536)
                while b"\r\n\r\n" not in answer or not _whole(answer):
                    answer += connection.recv(65536) or b"\r\n\r\ncut"
                seen[answer.split(b" ", 2)[1].decode()] += 1
                if b"connection: close" in answer.lower():
                    connection = None
            except OSError as error:
                seen[type(error).__name__] += 1
                connection = None

    threads = [threading.Thread(target=flow, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    try:
        yield seen
    finally:
        time.sleep(0.5)
        done.set()
        for thread in threads:
            thread.join()


def _whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return True


__all__ = ["APP", "HIDDEN", "IMAGE", "ContainerError", "Gateway", "raw", "users"]
