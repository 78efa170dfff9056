"""Types of rules, and of the resources that rules check. This module does not import Pulumi."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Properties = Mapping[str, Any]


def get_path(value: Properties, *keys: str) -> Properties:
    """Return the mapping at the path `keys`, or an empty mapping if a key is missing."""
    for key in keys:
        value = value.get(key) or {}
    return value


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the rules. The values are in `settings.py`."""

    relaxed: tuple[str, ...]
    """Patterns (`fnmatch`) of the stacks to which strict rules do not apply."""
    registries: tuple[str, ...]
    """Trusted prefixes of images, in full: `docker.io/library`, `ghcr.io/team`."""
    secure_listeners: tuple[str, ...]
    """Patterns (`fnmatch`) of listeners that have a certificate, on Gateways that the program does not create."""

    def strict(self, stack: str) -> bool:
        return not any(fnmatchcase(stack, pattern) for pattern in self.relaxed)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Resource of a stack. `kept` is True if updates ignore all changes of the resource."""

    type: str
    name: str
    stack: str
    props: Properties
    protect: bool = False
    kept: bool = False
    urn: str = ""

    @property
    def kind(self) -> str:
        """Last part of the type, such as `Deployment` of `kubernetes:apps/v1:Deployment`."""
        return self.type.rpartition(":")[2]

    def on(self, platform: str, *kinds: str) -> bool:
        return self.type.startswith(f"{platform}:") and self.kind in kinds

    @property
    def labels(self) -> Mapping[str, str]:
        if self.type.startswith("kubernetes:"):
            return get_path(self.props, "metadata", "labels")
        return {label["label"]: label["value"] for label in self.props.get("labels") or ()}


Check = Callable[[Resource, Settings], Iterator[str]]
Problem = tuple[Resource, str]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Requirement for resources.

    A `strict` rule does not apply to relaxed stacks. A `whole` rule checks all resources of a stack at once.
    """

    name: str
    demand: str
    check: Callable[[Sequence[Resource], Settings], Iterator[Problem]]
    strict: bool = False
    whole: bool = False

    def problems(self, resources: Sequence[Resource], settings: Settings) -> Iterator[Problem]:
        """Yield each problem of these resources, with the fix.

        Skip kept resources, because they were checked when they were released. Otherwise a new rule that the live
        release breaks would refuse every later release.
        """
        resources_to_check = [
            resource
            for resource in resources
            if not resource.kept and (not self.strict or settings.strict(resource.stack))
        ]
        return self.check(resources_to_check, settings)


def combine_checks(*checks: Check) -> Callable[[Sequence[Resource], Settings], Iterator[Problem]]:
    """Combine checks for a single resource into one check for a list of resources."""

    def check(resources: Sequence[Resource], settings: Settings) -> Iterator[Problem]:
        for resource in resources:
            for single_check in checks:
                for problem in single_check(resource, settings):
                    yield resource, problem

    return check
