"""Base class of all operations of `KubernetesDeployer`. It registers objects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pulumi import CustomResource, CustomTimeouts, Output, ProviderResource, Resource

from ...config import App, Environment, Kubernetes
from ...context import Context
from ...model import services
from ...model.workload import Volume
from ...options import data_options
from ...release.checkpoint import Checkpoint
from ...release.planner import Slot
from ...state.kubernetes import CLAIM
from .. import impact
from ..base import Dependencies
from . import errors, manifests
from .foundation import Foundation, claim_path, register, with_data_label
from .inspect import KubernetesInspector
from .objects import Manifest, Scope


@dataclass(frozen=True, kw_only=True)
class Registrar:
    """Base class that registers objects of a stack. All base classes of `KubernetesDeployer` inherit from it."""

    context: Context
    live: Slot | None
    """Slot that was live when the update began; None if no slot was live."""
    scope: Scope
    inspector: KubernetesInspector
    foundation: Foundation

    @property
    def app(self) -> App:
        return self.context.app

    @property
    def environment(self) -> Environment:
        return self.context.environment

    @property
    def checkpoint(self) -> Checkpoint:
        return self.context.checkpoint

    @property
    def cluster(self) -> Kubernetes:
        return self.environment.cluster

    @property
    def url(self) -> str:
        return self.environment.url

    @property
    def namespace(self) -> str:
        return self.scope.namespace

    @property
    def foundation_resources(self) -> Sequence[Resource]:
        return self.foundation.resources

    def provider_for(self, parent: Resource) -> ProviderResource:
        """Return the provider in the options of the component `parent`, or else the foundation's provider."""
        return parent.get_provider(CLAIM) or self.foundation.provider

    def impact(self) -> str:
        """Probe the live slot, and describe the effect of a failed update on users."""
        return impact.describe_live(self.live, self.url, self.checkpoint, self.inspector)

    def object(self, parent: Resource, manifest: Manifest, after: Dependencies = (), **more: Any) -> CustomResource:
        """Register the object of a manifest. The object depends on the namespace and on the resources `after`."""
        return register(parent, manifest, self.provider_for(parent), [*self.foundation.namespace, *after], **more)

    def register_volume_claim(self, parent: Resource, tier: str, volume: Volume) -> CustomResource:
        """Register the PersistentVolumeClaim of a data volume. The claim stays when releases are deleted."""
        holds_data = services.holds_data(tier)
        claim = manifests.claim(self.scope, tier, volume)
        manifest = with_data_label(self.checkpoint, CLAIM, claim, holds_data=holds_data)
        hooks = errors.explain(claim_path(tier), manifest, self.cluster.context, impact=self.impact)
        return self.object(parent, manifest, hooks=hooks, **data_options(self.environment.protect_data and holds_data))

    def _register_and_wait(
        self,
        parent: Resource,
        manifest: Manifest,
        after: Dependencies,
        within: float,
        path: str,
        impact: Callable[[], str] | None = None,
        **more: Any,
    ) -> CustomResource:
        """Register an object that the provider waits for. If the object fails or is not ready in time, log an explanation."""
        hooks = errors.explain(path, manifest, self.cluster.context, impact=impact or self.impact)
        return self.object(parent, manifest, after, hooks=hooks, custom_timeouts=limit(within), **more)


def created_output(resource: CustomResource) -> Output[Resource]:
    return resource.id.apply(lambda _: resource)


def limit(within: float) -> CustomTimeouts:
    limit = f"{round(within) + 15}s"
    return CustomTimeouts(create=limit, update=limit)
