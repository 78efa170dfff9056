"""Models of monitoring: metrics, alerts and a dashboard."""

from collections.abc import Mapping

from pydantic import Field

from ..model import services
from .base import Model
from .units import (
    Address,
    Cpu,
    ImageReference,
    Interval,
    LabelKey,
    LabelValue,
    Memory,
    Name,
    Page,
    Port,
    ServiceName,
    Wait,
)

_DEFAULTS = ", ".join(
    f"{record.exporter.image} for the {record.name}" for record in services.common_catalogue().data if record.exporter
)


class Monitoring(Model):
    """Metrics, alerts and a dashboard. `monitoring: true` enables all of them with the defaults.

    On Docker the program deploys a Prometheus. On Kubernetes the program configures the cluster's Prometheus
    (prometheus-operator).
    """

    interval: Interval = Field(
        default=15, validate_default=False, description="Interval at which Prometheus reads metrics, at most 2m."
    )
    runbook: Page = Field(
        default="docs/runbook.md", description="Page that alerts link to: an address, or a path in the repository."
    )
    exporters: dict[ServiceName, ImageReference] = Field(
        default={},
        description=f"Images of metrics exporters: data service → image. Default is {_DEFAULTS}. The exporter of the cache needs a shell.",
    )
    image: ImageReference = Field(default="prom/prometheus:v2.42.0", description="Docker: image of Prometheus.")
    port: Port = Field(default=9090, description="Docker: port of Prometheus, on 127.0.0.1.")
    retention: Wait = Field(
        default=15 * 24 * 3600, validate_default=False, description="Docker: time for which Prometheus keeps metrics."
    )
    alertmanager: Address | None = Field(
        examples=["http://alertmanager:9093"],
        default=None,
        description="Docker: address of the Alertmanager that receives alerts.",
    )
    cpu: Cpu = Field(default=0.5, validate_default=False, description="Docker: processor limit of Prometheus.")
    memory: Memory = Field(
        default=512 * 2**20, validate_default=False, description="Docker: memory limit of Prometheus."
    )
    namespace: Name = Field(
        default="monitoring",
        description="Kubernetes: namespace of Prometheus. Only pods of this namespace may read metrics.",
    )
    labels: dict[LabelKey, LabelValue] = Field(
        default={},
        description="Kubernetes: labels for monitors and rules, by which the cluster's Prometheus selects them, as in {release: prometheus}.",
    )

    @property
    def inapplicable(self) -> Mapping[str, tuple[str, ...]]:
        """Keys without effect: platform → keys."""
        docker = ("image", "port", "retention", "alertmanager", "cpu", "memory")
        return {"docker": ("namespace", "labels"), "kubernetes": docker}
