"""Conversion of a normalised Compose file into `app`, `environment`, secrets and notes.

The conversion reads only its arguments, and no files. The notes list every setting that was not converted,
and every value that was assumed because the Compose file lacks it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pulumi import RunError

from components.model.services import API, WEB, common_catalogue

from .commands import add_one_off_services
from .compose_service import Note, Plain, listing, unescape
from .data_services import convert_data_service
from .needs import find_needs, note_unneeded_data
from .ports import convert_gateway
from .project import Project
from .remaining_keys import note_remaining_keys
from .resources import convert_resources
from .slot_services import convert_slot_service
from .validation import validate


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Result of a conversion: plain values of `app` and `environment`, the secrets, and the notes."""

    app: Plain
    environment: Plain
    notes: tuple[Note, ...]
    secrets: dict[str, str] = field(repr=False)
    """Values of secrets by name. The values must not be printed."""
    files: dict[str, str]
    """Secrets with a value in a file: name → path of the file."""


def convert(
    compose: Mapping[str, Any],
    *,
    name: str,
    base: str,
    folder: str,
    password: Callable[[], str],
    profiles: Collection[str] = (),
) -> Conversion:
    """Convert a Compose file to an application and an environment.

    Args:
        compose: output of `docker compose config`.
        name: name of the application.
        base: folder of the Compose file. Notes show paths below this folder as relative paths.
        folder: folder of the new Pulumi.yaml. The paths of build folders are relative to this folder.
        password: function that generates a password. It is called for a database or cache that has no password.
        profiles: names of the Compose profiles whose services are imported.

    Raises:
        RunError: a value in the file is invalid, or no service fits the tier web or api.
    """
    try:
        normalised = cast(Plain, unescape(validate(compose)))
    except RecursionError:
        raise RunError(
            "the YAML of this file is nested too deeply for a Compose file; set COMPOSE to the file with the key `services`"
        ) from None
    project = Project.read(normalised, base=base, folder=folder, profiles=profiles)
    _refuse_without_http_service(project)
    return _convert(project, name, password)


def _refuse_without_http_service(project: Project) -> None:
    if {WEB.name, API.name} & set(project.roles.tiers):
        return
    unselected = sorted(
        {profile for service in project.services.values() for profile in listing(service.raw, "profiles")}
    )
    hint = f"; for the services of a profile set COMPOSE_PROFILES (here: {', '.join(unselected)})" if unselected else ""
    raise RunError(f"no service is a web or an api; name a service web or api, or give it a port{hint}")


def _convert(project: Project, name: str, password: Callable[[], str]) -> Conversion:
    roles = project.roles
    tier_settings = {tier: convert_resources(project, service) for tier, service in roles.tiers.items()}
    # Data tiers are converted first, because the other tiers need their passwords.
    parts = {
        tier: convert_data_service(project, tier, service, password)
        for tier, service in roles.tiers.items()
        if common_catalogue().is_shared(tier)
    }
    for tier, needs in find_needs(project).items():
        parts[tier], local_env = convert_slot_service(project, tier, needs)
        tier_settings[tier] |= {"env": local_env} if local_env else {}
    note_unneeded_data(project, parts)
    add_one_off_services(project, parts)
    note_remaining_keys(project)
    order = [tier for tier in roles.catalogue.names if tier in parts]
    further = {tier: {"tier": roles.further[tier], **parts[tier]} for tier in roles.further}
    return Conversion(
        app={"name": name, "version": "1.0.0"}
        | {tier: parts[tier] for tier in order if tier not in further}
        | ({"services": further} if further else {}),
        environment=_environment(project, parts, {tier: tier_settings[tier] for tier in order if tier_settings[tier]}),
        notes=project.notes.sorted(),
        secrets=project.secrets.values,
        files=project.secrets.files,
    )


def _environment(project: Project, parts: Mapping[str, Plain], tiers: Plain) -> Plain:
    """Return the settings of `environment` for development on Docker. `tiers` has the settings of each tier."""
    gateway = convert_gateway(project)
    return {
        "platform": "docker",
        **({"gateway": gateway} if gateway else {}),
        **{key: True for key in ("reload", "seed") if any(key in part for part in parts.values())},
        "protect_data": False,
        "tiers": tiers,
    }
