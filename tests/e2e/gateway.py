"""Gateway that runs on the local Docker engine without Pulumi.

The image, the start command and the toolbox (components/platforms/toolbox.py) are the same as in a deployed gateway.
"""

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

from components.model.services import API
from components.model.workload import Route
from components.platforms.docker import haproxy
from components.platforms.process import toolbox_program
from components.release.planner import Slot

from .leftovers import LABEL
from .stack import eventually, free_port

FIRST_CHECK = 1.5
"""Seconds until HAProxy has completed its first health check of a server. The check takes at most one second (`inter`)."""
IMAGE, PYTHON = "haproxy:2.6-bookworm", "python:3.11-slim-bookworm"
APP = Path(__file__).with_name("app.py").read_text()
"""Source of the HTTP server that runs in the container of each tier."""


class Gateway:
    """Gateway without a stack. The tiers are containers with the same network names as in a deployed slot, such as `api-blue`."""

    def __init__(self, name: str) -> None:
        self.name, self.port, self.api_port = name, free_port(), free_port()
        self.engine: Any = docker.from_env()
        self.network = self.engine.networks.create(name, labels={LABEL: name})
        self.engine.volumes.create(name, labels={LABEL: name})
        self.container = self.engine.containers.run(
            IMAGE, ["sh", "-c", haproxy.START], name=name, detach=True, network=name, user=f"{haproxy.USER}",
            environment={"CONFIG": haproxy.FIRST}, volumes={name: {"bind": haproxy.FOLDER}}, labels={LABEL: name},
            ports={f"{haproxy.PORT}/tcp": ("127.0.0.1", self.port),
                   f"{haproxy.own_port(API.name)}/tcp": ("127.0.0.1", self.api_port)},
            restart_policy={"Name": "unless-stopped"},
        )  # fmt: skip

    def start_tiers(self, slot: Slot, *routes: Route) -> None:
        """Start a container for each route of a slot, and replace any earlier container of the same tier and slot."""
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

    def run_toolbox(self, *words: str) -> str:
        """Run the toolbox in a container with the gateway's volume, and return the output.

        Raises:
            ContainerError: the toolbox ended with an error.
        """
        output = self.engine.containers.run(
            PYTHON, ["python3", "-c", toolbox_program(), *words], remove=True, user=f"{haproxy.USER}", network_mode="none",
            volumes={self.name: {"bind": haproxy.FOLDER}}, labels={LABEL: self.name}, stderr=True,
        )  # fmt: skip
        return output.decode().strip()

    def write_routes(self, slot: Slot, slots: Mapping[Slot, Sequence[Route]], time_limit: str = "60") -> str:
        """Write the routes of all slots into the gateway's configuration, and return the output of the toolbox.

        A release runs the same toolbox command before it starts the tiers of its slot.

        Args:
            slot: slot that gets a release.
            slots: routes of all slots.
            time_limit: maximum duration of the command, in seconds.
        """
        text = haproxy.configuration(slots, [API.name], url="http://127.0.0.1:8080")
        self.check(text)
        return self.run_toolbox("route", haproxy.FOLDER, time_limit, str(slot), f"1-{slot}", text)

    def check(self, text: str) -> None:
        """Check a configuration with the HAProxy of the gateway's image.

        Raises:
            ContainerError: HAProxy refuses the configuration.
        """
        self.engine.containers.run(
            IMAGE, ["sh", "-c", haproxy.CHECK], remove=True, user=f"{haproxy.USER}", environment={"CONFIG": text},
            network_mode="none", tmpfs={haproxy.FOLDER: f"uid={haproxy.USER}"}, labels={LABEL: self.name}, stderr=True,
        )  # fmt: skip

    def switch(self, slot: Slot) -> None:
        """Make a slot live."""
        self.run_toolbox("route", haproxy.FOLDER, "30", "live", str(slot))

    def request(self, path: bytes, port: int | None = None, *headers: str) -> tuple[int, bytes]:
        """Send a request with `path` as its exact path, and return status and body. Status 0 means no answer."""
        return send_raw_request(port or self.port, path, "localhost", *headers)

    def live(self) -> Slot:
        """Return the live slot, which receives new requests."""
        entries = dict(line.split() for line in self.read_file("live.map").splitlines())
        return Slot(entries["live"])

    def wait_for_tiers(self, slot: Slot, *tiers: str, seconds: float = 30) -> None:
        """Wait until the tiers of a slot answer through the gateway with status 200, and check again after `FIRST_CHECK` seconds.

        HAProxy's first health check may begin before the container is on the network, and then fails one second later. Until
        this failure HAProxy sends requests to the container, because the container's name already resolves. A release needs no
        second check, because it first waits for the engine's health checks, which take longer.
        """
        header = f"{haproxy.SLOT_HEADER}: {slot}"

        def answer() -> bool:
            return {self.request(f"/.gateway/{tier}".encode(), None, header)[0] for tier in tiers} == {200}

        eventually(answer, seconds)
        time.sleep(FIRST_CHECK)
        eventually(answer, seconds)

    def read_file(self, name: str) -> str:
        """Return the text of a file in the gateway's volume."""
        return self.engine.containers.run(
            PYTHON, ["cat", f"{haproxy.FOLDER}/{name}"], remove=True, volumes={self.name: {"bind": haproxy.FOLDER}}
        ).decode()

    def log_lines(self) -> list[str]:
        """Return the lines of the gateway's log."""
        return self.container.logs().decode(errors="replace").splitlines()

    def _remove(self, name: str) -> None:
        with suppress(NotFound):
            self.engine.api.remove_container(name, force=True)

    def close(self) -> None:
        """Remove the gateway with its tiers, network and volume."""
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
"""Spellings of the path /metrics. An application that decodes and normalises paths treats all of them as /metrics."""


def send_raw_request(port: int, path: bytes, host: str, *headers: str) -> tuple[int, bytes]:
    """Send a request with `path` as its exact path to a port of this machine, and return status and body.

    Status 0 means no answer.
    """
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
def user_requests(gateway: Gateway, path: bytes = b"/api/x") -> Generator[Counter[str]]:
    """Send the requests of two users while the `with` block runs, and count the answers by status.

    Each user keeps one connection open.
    """
    statuses: Counter[str] = Counter()
    stop = threading.Event()

    def send_requests() -> None:
        connection: socket.socket | None = None
        while not stop.wait(0.003):
            try:
                if not connection:
                    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
                connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = connection.recv(65536)
                while b"\r\n\r\n" not in answer or not _is_complete(answer):
                    answer += connection.recv(65536) or b"\r\n\r\ncut"
                statuses[answer.split(b" ", 2)[1].decode()] += 1
                if b"connection: close" in answer.lower():
                    connection = None
            except OSError as error:
                statuses[type(error).__name__] += 1
                connection = None

    threads = [threading.Thread(target=send_requests, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    try:
        yield statuses
    finally:
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join()


def _is_complete(answer: bytes) -> bool:
    """Return whether the body has the length in the header Content-Length, or this header is missing."""
    head, _, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return True


__all__ = ["APP", "HIDDEN", "IMAGE", "ContainerError", "Gateway", "send_raw_request", "user_requests"]
