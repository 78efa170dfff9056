"""Prometheus of an environment on Docker: pure functions to its workload and its files.

Source: Prometheus 2.42, configuration (scrape_config, dns_sd_config, file_sd_config). Prometheus finds tiers as the
gateway does, by the names that Docker's DNS has for a slot's containers.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..alerts import BACKUP, BACKUP_INTERVAL, BACKUP_PORT, BACKUP_TIMEOUT, EXPORTER_PORTS, Watched, file
from ..config import Listening, TierName
from ..files import as_json as yaml
from ..release import Slot
from ..workload import Image, Probe, Resources, Workload, Zone
from . import haproxy

NAME, PORT, USER = "prometheus", 9090, 65534
CONFIG, DATA, RELEASED, TARGETS = "/etc/prometheus", "/prometheus", "/etc/released", "targets.json"


def workload(watched: Watched) -> Workload:
    """Return the workload of the Prometheus server.

    It reaches the metrics of tiers and the outside network, from which it is queried and to which it sends alerts. It
    does not reach the data tiers.
    """
    settings = watched.settings
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


def files(watched: Watched) -> dict[str, str]:
    """Return path → text of Prometheus' files."""
    return {
        f"{CONFIG}/prometheus.yml": yaml(_configuration(watched)),
        f"{CONFIG}/rules.yml": yaml(file(watched)),
    }


def released(live: Mapping[str, str]) -> str:
    """Return a target file whose labels name the live release. Prometheus reads such a file again when it changes."""
    return json.dumps([{"targets": [f"localhost:{PORT}"], "labels": dict(live)}])


def _configuration(watched: Watched) -> dict[str, Any]:
    interval = f"{watched.settings.interval * 1000:.0f}ms"
    jobs = [_tier(tier, described) for tier, described in watched.app.measured.items()]
    jobs += [_one(tier, f"{tier}-exporter:{EXPORTER_PORTS[tier]}") for tier in watched.exported]
    jobs += [_one(BACKUP, f"{BACKUP}:{BACKUP_PORT}") | _SELDOM] if watched.backed_up else []
    jobs += [_one("gateway", f"gateway:{haproxy.METRICS_PORT}"), _one(NAME, f"localhost:{PORT}"), _RELEASED]
    namespace_label = {"target_label": "namespace", "replacement": watched.namespace}
    jobs = [job | {"relabel_configs": [*job.get("relabel_configs", ()), namespace_label]} for job in jobs]
    configuration: dict[str, Any] = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [f"{CONFIG}/rules.yml"],
        "scrape_configs": jobs,
    }
    if watched.settings.alertmanager:
        parts = urlsplit(watched.settings.alertmanager)
        manager = {"scheme": parts.scheme, "static_configs": [{"targets": [parts.netloc]}]}
        configuration["alerting"] = {"alertmanagers": [manager]}
    return configuration


def _one(job: str, target: str) -> dict[str, Any]:
    return {"job_name": job, "static_configs": [{"targets": [target]}]}


def _tier(tier: TierName, described: Listening) -> dict[str, Any]:
    """Return the scrape job of a tier's replicas in both slots.

    A slot without containers has no targets, and thus none that is down.
    """
    names = [f"{tier}-{slot}" for slot in Slot]
    slot = {"source_labels": ["__meta_dns_name"], "regex": f"{tier}-(.+)", "target_label": "slot"}
    return {
        "job_name": str(tier),
        "metrics_path": described.metrics,
        "dns_sd_configs": [{"names": names, "type": "A", "port": described.port, "refresh_interval": "5s"}],
        "relabel_configs": [slot],
    }


_SELDOM = {"scrape_interval": BACKUP_INTERVAL, "scrape_timeout": BACKUP_TIMEOUT}
_RELEASED: dict[str, Any] = {
    "job_name": "release",
    "file_sd_configs": [{"files": [f"{RELEASED}/*.json"], "refresh_interval": "30s"}],
    # Only `up` is used, for it has the labels of the file; all other series are dropped.
    "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": ".*", "action": "drop"}],
}
