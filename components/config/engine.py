"""Models of an environment on Docker: the engine and its gateway."""

from itertools import combinations
from typing import Literal, Self

from pydantic import Field, model_validator

from .base import Model
from .errors import problem
from .units import Cpu, Engine, ImageReference, Memory, Port, ServiceName


class Gateway(Model):
    """Gateway (HAProxy) that users connect to. Only the gateway publishes ports; tiers publish none."""

    address: Literal["127.0.0.1", "0.0.0.0"] = Field(
        default="127.0.0.1",
        description="Address that the gateway listens on: 127.0.0.1 for this host only, 0.0.0.0 for the network.",
    )
    port: Port = Field(default=8080, description="Port of the gateway on the engine's host.")
    ports: dict[ServiceName, Port] = Field(
        default={},
        description="Further ports: tier → port. The gateway routes all requests to such a port to that tier.",
    )
    metrics_port: Port | None = Field(
        examples=[8404], default=None, description="Port of the gateway's Prometheus metrics, on 127.0.0.1."
    )
    image: ImageReference = Field(default="haproxy:2.6-bookworm", description="Image of HAProxy.")
    cpu: Cpu = Field(default=0.5, validate_default=False, description="Processor limit of the gateway.")
    memory: Memory = Field(default=128 * 2**20, validate_default=False, description="Memory limit of the gateway.")

    @model_validator(mode="after")
    def _ports_apart(self) -> Self:
        for (one, first), (other, second) in combinations(self.published.items(), 2):
            if first == second:
                raise problem(f"{one} and {other} have the same port {first}", "use different ports")
        return self

    @property
    def published(self) -> dict[str, int]:
        """All ports that the gateway publishes on the engine's host, by config key."""
        ports = {f"ports.{tier}": port for tier, port in sorted(self.ports.items())}
        metrics = {"metrics_port": self.metrics_port} if self.metrics_port else {}
        return {"port": self.port, **metrics, **ports}


class Docker(Model):
    """Docker engine to deploy to."""

    host: Engine | None = Field(
        default=None,
        description="Address of the engine: unix:///…, ssh://user@host or tcp://host:port; default is DOCKER_HOST, then the local socket.",
    )
    busybox: ImageReference = Field(
        default="busybox:1.37.0-musl",
        description="Image with a static BusyBox in /bin. Containers of tiers mount the program for health checks, time limits of tasks and `secret_env`, "
        "so images need no shell and no HTTP client. For scheduled jobs it also needs a folder /tmp with mode 1777, as the public image has.",
    )
