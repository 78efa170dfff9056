"""State of a conversion: the Compose file, the roles of its services, and the collected notes and secrets."""

import os.path
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from .compose_service import ComposeService, Notes, Plain, mapping
from .roles import Roles, assign_roles
from .secret_values import Secrets


@dataclass(frozen=True, kw_only=True)
class Project:
    """Normalised Compose file, with the role of each service. Notes and secrets are added during the conversion."""

    compose: Plain
    services: Mapping[str, ComposeService]
    """Services by their names in the Compose file."""
    roles: Roles
    notes: Notes
    secrets: Secrets
    base: str
    """Folder of the Compose file."""
    folder: str
    """Folder of the new Pulumi.yaml."""

    @classmethod
    def read(cls, compose: Plain, *, base: str, folder: str, profiles: Collection[str]) -> "Project":
        """Create the project of a normalised Compose file. `profiles` are the Compose profiles to import."""
        services = {name: ComposeService(name, raw) for name, raw in mapping(compose, "services").items()}
        notes = Notes()
        return cls(
            compose=compose,
            services=services,
            notes=notes,
            secrets=Secrets(mapping(compose, "secrets")),
            roles=assign_roles(services, profiles, notes),
            base=base,
            folder=folder,
        )

    def relative(self, path: str) -> str:
        """Return a path relative to the folder of the new Pulumi.yaml."""
        return os.path.relpath(path, self.folder)

    def shown(self, path: str) -> str:
        """Return a path for a note: relative to the folder of the Compose file if possible, otherwise unchanged."""
        return os.path.relpath(path, self.base) if is_inside(path, self.base) else path


def is_inside(path: str, folder: str) -> bool:
    """Return True if `path` is `folder` or below it."""
    return PurePath(path).is_relative_to(folder)
