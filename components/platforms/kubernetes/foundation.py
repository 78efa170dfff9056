"""Foundation of a stack in a cluster: the resources that every object depends on."""

from collections.abc import Callable
from importlib import metadata
from typing import Any

from pulumi import ComponentResource, CustomResource, ProviderResource, Resource, ResourceOptions

from ...context import Context
from ...options import child_options, data_options
from ...release.checkpoint import Checkpoint
from ...safety.data import data_labels
from ...state.kubernetes import CLAIM, FOUNDATION, NAMESPACE
from ..base import Dependencies
from . import errors, manifests, policies
from .objects import Manifest, Scope


class Foundation(ComponentResource):
    """Resources that every object of a stack depends on: provider, namespace with limits, base policies, and volumes of services."""

    def __init__(
        self, context: Context, scope: Scope, impact: Callable[[], str], opts: ResourceOptions | None = None
    ) -> None:
        super().__init__(FOUNDATION, "ground", None, opts)
        environment = context.environment
        settings, protected = environment.cluster.namespace, environment.protect_data
        self.provider = self.get_provider(CLAIM) or self._own_provider(environment.cluster.context)
        self.namespace: list[Resource] = []
        if settings.create:
            options = data_options(protected)
            namespace = with_data_label(context.checkpoint, NAMESPACE, manifests.namespace(scope))
            self.namespace.append(register(self, namespace, self.provider, **options))
        namespaced = [manifests.quota(scope, settings.quota)] if settings.quota else []
        namespaced += [manifests.limit_range(scope, settings.limits)] if settings.limits else []
        namespaced += policies.base_policies(scope)
        self.resources = [
            *self.namespace,
            *(register(self, item, self.provider, self.namespace) for item in namespaced),
        ]
        # Take the size from any tier that shares the volume, because the configuration check requires equal sizes.
        owners = {name: tier for tier, service in context.app.slot_services.items() for name in service.volumes}
        for name, tier in owners.items():
            volume = context.description.volume(tier, name, "")
            manifest = with_data_label(context.checkpoint, CLAIM, manifests.claim(scope, tier, volume))
            hooks = errors.explain(claim_path(tier), manifest, environment.cluster.context, impact=impact)
            options = data_options(protected)
            self.resources.append(register(self, manifest, self.provider, self.namespace, hooks=hooks, **options))
        self.register_outputs({"namespace": scope.namespace})

    def _own_provider(self, context: str) -> ProviderResource:
        """Register a provider of the cluster, without the SDK's provider class.

        The class reads KUBECONFIG as one file. The provider itself and kubectl read KUBECONFIG as a list of files.
        """
        opts = child_options(self, version=metadata.version("pulumi-kubernetes"))
        return ProviderResource("kubernetes", "cluster", {"context": context}, opts)


def with_data_label(checkpoint: Checkpoint, type_: str, manifest: Manifest, *, holds_data: bool = True) -> Manifest:
    """Return the manifest with the label `tiers.data`, which says whether the object holds data.

    Return the manifest unchanged if the object is already deployed without this label.
    """
    labels = data_labels(checkpoint.find(type_, manifest["metadata"]["name"]), holds_data=holds_data)
    about: Manifest = manifest["metadata"]
    return manifest | {"metadata": about | {"labels": about["labels"] | labels}}


def claim_path(tier: str) -> str:
    """Return the configuration key of a tier's volume, for errors."""
    return f"environment.tiers.{tier}.storage"


def register(
    parent: Resource,
    manifest: Manifest,
    provider: ProviderResource,
    after: Dependencies = (),
    name: str | None = None,
    **more: Any,
) -> CustomResource:
    """Register a manifest's object as a Pulumi resource with the SDK's type token for its kind.

    Args:
        parent: the parent component.
        manifest: the manifest of the object.
        provider: provider of the cluster.
        after: resources that must exist before the object.
        name: resource name; None for the name of the object.
        more: additional options of the Pulumi resource.
    """
    group = manifest["apiVersion"] if "/" in manifest["apiVersion"] else f"core/{manifest['apiVersion']}"
    opts = child_options(parent, provider=provider, depends_on=after, **more)
    kind = f"kubernetes:{group}:{manifest['kind']}"
    return CustomResource(kind, name or manifest["metadata"]["name"], dict(manifest), opts)
