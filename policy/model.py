"""What a rule is, and what it is shown. No Pulumi."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Properties = Mapping[str, Any]


def at(value: Properties, *keys: str) -> Properties:
    """The mapping at the end of these keys; an empty one if any of them is not there."""
    for key in keys:
        value = value.get(key) or {}
    return value


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is decided in `settings.py`. `relaxed` and `secure_listeners` are patterns as of `fnmatch`."""

    relaxed: tuple[str, ...]
    """Stacks that only need what is not `strict`."""
    registries: tuple[str, ...]
    """Beginnings of images, written out: `docker.io/library`, `ghcr.io/team`."""
    secure_listeners: tuple[str, ...]
    """Listeners, on Gateways of somebody else, that have a certificate."""

    def strict(self, stack: str) -> bool:
        return not any(fnmatchcase(stack, pattern) for pattern in self.relaxed)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One resource of a stack. `kept` says that the program changes nothing of it."""

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
        return {each["label"]: each["value"] for each in self.props.get("labels") or ()}


Check = Callable[[Resource, Settings], Iterator[str]]
Problem = tuple[Resource, str]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One demand. `strict`: only where the stack is not relaxed. `whole`: of the stack, not of each resource."""

    name: str
    demand: str
    check: Callable[[Sequence[Resource], Settings], Iterator[Problem]]
    strict: bool = False
    whole: bool = False

    def problems(self, resources: Sequence[Resource], settings: Settings) -> Iterator[Problem]:
        """What is wrong with these, and the fix.

        What is kept was judged when it was released. Judged again, a rule that is newer than the release that serves
        would stand in the way of the one that is to take its place.
        """
        judged = [each for each in resources if not each.kept and (not self.strict or settings.strict(each.stack))]
        return self.check(judged, settings)


def of_each(*checks: Check) -> Callable[[Sequence[Resource], Settings], Iterator[Problem]]:
    def check(resources: Sequence[Resource], settings: Settings) -> Iterator[Problem]:
        for resource in resources:
            for one in checks:
                for problem in one(resource, settings):
                    yield resource, problem

    return check
