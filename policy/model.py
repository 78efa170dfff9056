"""Types of rules, and of the resources that they check. No Pulumi."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Properties = Mapping[str, Any]


def at(value: Properties, *keys: str) -> Properties:
    """Return the mapping below these keys, or an empty one if a key is missing."""
    for key in keys:
        value = value.get(key) or {}
    return value


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of `settings.py`. `relaxed` and `secure_listeners` are patterns of `fnmatch`."""

    relaxed: tuple[str, ...]
    """Stacks to which strict rules do not apply."""
    registries: tuple[str, ...]
    """Trusted prefixes of images, in full: `docker.io/library`, `ghcr.io/team`."""
    secure_listeners: tuple[str, ...]
    """Listeners with a certificate, on Gateways that the program does not create."""

    def strict(self, stack: str) -> bool:
        return not any(fnmatchcase(stack, pattern) for pattern in self.relaxed)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Resource of a stack. `kept` is True if the program ignores all changes of it."""

    type: str
    name: str
    stack: str
    props: Properties
    protect: bool = False
    kept: bool = False
    urn: str = ""

    @property
    def kind(self) -> str:
        """`Deployment` of kubernetes:apps/v1:Deployment, `Container` of docker:index/container:Container."""
        return self.type.rpartition(":")[2]

    def on(self, platform: str, *kinds: str) -> bool:
        return self.type.startswith(f"{platform}:") and self.kind in kinds

    @property
    def labels(self) -> Mapping[str, str]:
        if self.type.startswith("kubernetes:"):
            return at(self.props, "metadata", "labels")
        return {label["label"]: label["value"] for label in self.props.get("labels") or ()}


Check = Callable[[Resource, Settings], Iterator[str]]
Problem = tuple[Resource, str]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Requirement for resources. `strict` rules skip relaxed stacks; `whole` rules check all resources of a stack at once."""

    name: str
    demand: str
    check: Callable[[Sequence[Resource], Settings], Iterator[Problem]]
    strict: bool = False
    whole: bool = False

    def problems(self, resources: Sequence[Resource], settings: Settings) -> Iterator[Problem]:
        """Yield the problems of these resources, with fixes.

        Kept resources are skipped: they were checked when they were released. Otherwise a rule newer than the live
        release would refuse the release that is to replace it.
        """
        checked = [
            resource
            for resource in resources
            if not resource.kept and (not self.strict or settings.strict(resource.stack))
        ]
        return self.check(checked, settings)


def of_each(*checks: Check) -> Callable[[Sequence[Resource], Settings], Iterator[Problem]]:
    """Return a check of all resources that applies checks of single resources."""

    def check(resources: Sequence[Resource], settings: Settings) -> Iterator[Problem]:
        for resource in resources:
            for one in checks:
                for problem in one(resource, settings):
                    yield resource, problem

    return check
