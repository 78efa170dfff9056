"""Needs of the converted services: the other services to which a service connects."""

from collections.abc import Mapping

from .compose_service import Plain
from .project import Project


def find_needs(project: Project) -> dict[str, list[str]]:
    """Return the needs of each service in a slot: name of the service in `app` → names of the needed services.

    Needs must not form a cycle. If a need would close a cycle, leave it out and add a note. Services that come first in
    the catalogue keep their needs.
    """
    catalogue, tiers = project.roles.catalogue, project.roles.tiers
    needs: dict[str, list[str]] = {}
    for name in (record.name for record in catalogue.in_slots if record.name in tiers):
        possible = catalogue.may_need(name) & set(tiers)
        addressed = [other for other in catalogue.names if other in possible and tiers[name].talks_to(tiers[other])]
        cyclic = {other for other in addressed if _leads_to(needs, other, name)}
        for other in sorted(cyclic):
            project.notes.add_unconverted(
                tiers[name].path,
                f"it and {other} connect to each other, but services can't need each other; here only {other} can connect to it",
            )
        needs[name] = [other for other in addressed if other not in cyclic]
    return needs


def _leads_to(needs: Mapping[str, list[str]], name: str, target: str) -> bool:
    """Return True if the service `name` is `target`, or needs `target` directly or through other services."""
    return name == target or any(_leads_to(needs, need, target) for need in needs.get(name, ()))


def note_unneeded_data(project: Project, parts: Mapping[str, Plain]) -> None:
    """Add a note for each data service that no service needs."""
    needed = {need for part in parts.values() for need in part.get("needs", ())}
    for name in {record.name for record in project.roles.catalogue.data} & set(project.roles.tiers) - needed:
        project.notes.add_unconverted(
            project.roles.tiers[name].path,
            f"no service refers to it, so no service can connect to it; add {name} to `needs` of the services that use it",
        )
