"""Conversion of replicas, processors and memory to the settings of a tier in `environment`."""

import re

from components.model import services

from .compose_service import ComposeService, Plain, mapping
from .project import Project


def convert_resources(project: Project, service: ComposeService) -> Plain:
    """Return the settings of a service in `environment.tiers`."""
    path, deploy = service.path, mapping(service.raw, "deploy")
    tier_settings: Plain = {}
    replicas = int(deploy.get("replicas") or service.raw.get("scale") or project.roles.copies.get(service.name) or 1)
    if replicas > 1 and services.common_catalogue().is_shared(project.roles.new_name(service.name) or ""):
        project.notes.add_unconverted(f"{path}.deploy.replicas", "the database and the cache run as a single instance")
    elif replicas > 1:
        tier_settings["replicas"] = replicas
    if cpu := service.limits.get("cpus") or service.raw.get("cpus"):
        tier_settings["cpu"] = float(cpu)
    if memory := service.limits.get("memory") or service.raw.get("mem_limit"):
        tier_settings["memory"] = _memory(str(memory))
    if mapping(deploy, "resources").get("reservations"):
        project.notes.add_unconverted(
            f"{path}.deploy.resources.reservations", "Docker reserves no resources; on Kubernetes set `reserve`"
        )
    if "placement" in deploy:
        project.notes.add_unconverted(
            f"{path}.deploy.placement",
            "it has no equivalent on Docker; on Kubernetes tiers are spread over hosts and zones",
        )
    return tier_settings


def _memory(text: str) -> str:
    """Convert a size of Compose (bytes, `512m` or `1GB`) to the notation of the configuration (`512Mi`)."""
    match = re.fullmatch(r"([\d.]+)([bkmg]?)b?", text.lower())
    if not match:
        return text
    size = int(float(match[1]) * {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}[match[2]])
    return f"{size // 2**30}Gi" if size and size % 2**30 == 0 else f"{size // 2**20}Mi"
