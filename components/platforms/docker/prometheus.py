"""Prometheus of an environment on Docker: workload and configuration files. All functions are pure.

Like the gateway, Prometheus finds the replicas of a tier in a slot by a DNS name.

Source: Prometheus 2.42, configuration (scrape_config, dns_sd_config, file_sd_config).
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ...config import Listening
from ...config.files import as_json as yaml
from ...model.workload import Image, Probe, Resources, Workload, Zone
from ...observability.alerts import BACKUP_INTERVAL, BACKUP_PORT, BACKUP_TIMEOUT, MonitoringScope, rule_file
from ...release.planner import Slot
from . import haproxy

NAME, PORT, USER = "prometheus", 9090, 65534
CONFIG, DATA, RELEASED, TARGETS = "/etc/prometheus", "/prometheus", "/etc/released", "targets.json"


def workload(monitored: MonitoringScope) -> Workload:
    """Return the workload of the Prometheus server.

    Prometheus can connect to workloads with metrics, but not to the data services. On the outside network Prometheus receives
    queries and sends alerts.
    """
    settings = monitored.settings
    return Workload(
        tier=NAME,
        image=Image(reference=settings.image, path="environment.monitoring.image"),
        resources=Resources(cpu=settings.cpu, memory=settings.memory),
        command=(
            f"--config.file={CONFIG}/prometheus.yml",
            f"--storage.tsdb.path={DATA}",
            f"--storage.tsdb.retention.time={settings.retention:.0f}s",
        ),
        port=PORT,
        probe=Probe(path="/-/ready", port=PORT),
        zones=(Zone.EDGE, Zone.WATCH, Zone.OUTSIDE),
        writable=("/tmp",),
        user=USER,
    )


def files(monitored: MonitoringScope) -> dict[str, str]:
    """Return the configuration files of Prometheus: path → text."""
    return {
        f"{CONFIG}/prometheus.yml": yaml(_configuration(monitored)),
        f"{CONFIG}/rules.yml": yaml(rule_file(monitored)),
    }


def release_targets(live: Mapping[str, str]) -> str:
    """Render a target file for Prometheus. Its only target has the labels in `live`: the live slot and release."""
    return json.dumps([{"targets": [f"localhost:{PORT}"], "labels": dict(live)}])


def _configuration(monitored: MonitoringScope) -> dict[str, Any]:
    interval = f"{monitored.settings.interval * 1000:.0f}ms"
    jobs = [_tier_job(tier, settings) for tier, settings in monitored.app.measured.items()]
    jobs += [_static_job(tier, f"{tier}-exporter:{exporter.port}") for tier, exporter in monitored.exporters.items()]
    jobs += [_static_job(name, f"{name}:{BACKUP_PORT}") | _BACKUP_INTERVALS for name in monitored.backup_jobs]
    jobs += [
        _static_job("gateway", f"gateway:{haproxy.METRICS_PORT}"),
        _static_job(NAME, f"localhost:{PORT}"),
        _RELEASED,
    ]
    namespace_label = {"target_label": "namespace", "replacement": monitored.namespace}
    jobs = [job | {"relabel_configs": [*job.get("relabel_configs", ()), namespace_label]} for job in jobs]
    configuration: dict[str, Any] = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [f"{CONFIG}/rules.yml"],
        "scrape_configs": jobs,
    }
    if monitored.settings.alertmanager:
        parts = urlsplit(monitored.settings.alertmanager)
        manager = {"scheme": parts.scheme, "static_configs": [{"targets": [parts.netloc]}]}
        configuration["alerting"] = {"alertmanagers": [manager]}
    return configuration


def _static_job(job: str, target: str) -> dict[str, Any]:
    return {"job_name": job, "static_configs": [{"targets": [target]}]}


def _tier_job(tier: str, settings: Listening) -> dict[str, Any]:
    """Return the scrape job of a tier's replicas in both slots.

    A slot without containers has no targets, so no alert fires for the slot.
    """
    names = [f"{tier}-{slot}" for slot in Slot]
    slot = {"source_labels": ["__meta_dns_name"], "regex": f"{tier}-(.+)", "target_label": "slot"}
    return {
        "job_name": str(tier),
        "metrics_path": settings.metrics,
        "dns_sd_configs": [{"names": names, "type": "A", "port": settings.port, "refresh_interval": "5s"}],
        "relabel_configs": [slot],
    }


_BACKUP_INTERVALS = {"scrape_interval": BACKUP_INTERVAL, "scrape_timeout": BACKUP_TIMEOUT}
_RELEASED: dict[str, Any] = {
    "job_name": "release",
    "file_sd_configs": [{"files": [f"{RELEASED}/*.json"], "refresh_interval": "30s"}],
    # Drop all scraped series. Prometheus still adds the series `up`, which has the labels of the target file.
    "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": ".*", "action": "drop"}],
}
