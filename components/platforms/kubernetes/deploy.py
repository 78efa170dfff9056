"""Kubernetes platform: workloads as objects of one namespace.

The modules `manifests`, `routes` and `policies` render objects, and `KubernetesDeployer` registers them unchanged. Tests and linters
therefore check exactly the objects that are applied. Objects are registered as manifests, because importing the SDK's classes takes
a fifth of a second (docs/adr/006-manifests.md).

The program relies on these properties of the provider (pulumi-kubernetes 4): it uses server-side apply, waits for Deployments,
StatefulSets and Jobs, and replaces a Job if the Job's template changes.
"""

import copy
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pulumi import Resource, ResourceOptions

from ...context import Context
from ...model import services
from ...model.workload import DatabaseCluster, ExternalService, Replicated, Scale, Volume, Workload
from ...release.checkpoint import Entry
from ...release.planner import Slot
from ...state.kubernetes import CLAIM, CLUSTER, CRON_JOB, NAMESPACE, STATEFUL_SET
from .. import impact
from ..base import Dependencies, Deployer, DesiredState, LiveObject, SlotTarget
from . import cnpg, errors, keys, manifests, policies, replicated
from .databases import DatabaseOperations
from .foundation import Foundation, with_data_label
from .gateway import GatewayOperations
from .inspect import inspector
from .monitoring import MonitoringOperations
from .objects import Scope
from .registrar import limit
from .tasks import TaskOperations


class KubernetesDeployer(DatabaseOperations, TaskOperations, GatewayOperations, MonitoringOperations):
    """Deployer for one namespace of a cluster. Implements `Deployer` and `DeploysClusters`."""

    def logs(self, live: Slot) -> Mapping[str, str]:
        follow = (
            f"kubectl --context {shlex.quote(self.cluster.context)} --namespace {self.scope.namespace} logs --follow"
        )
        slot_tiers = {name: f"{follow} deployment/{name}-{live} --all-pods" for name in self.app.slot_services}
        slot_tiers |= {name: f"{follow} statefulset/{name}" for name in self.app.single_processes}
        data = {tier: self.environment.tier_settings(tier).ha for tier in self.environment.data(self.app)}
        several = "--selector app.kubernetes.io/component={0} --all-containers --prefix"
        return slot_tiers | {
            str(tier): f"{follow} {several.format(tier) if ha else f'statefulset/{tier}'}" for tier, ha in data.items()
        }

    def allow_external_access(self, parent: Resource, external: ExternalService) -> Sequence[Resource]:
        manifest = policies.external_policy(self.scope, external)
        return [self.object(parent, manifest)]

    def deploy_service(
        self,
        parent: Resource,
        workload: Workload,
        target: SlotTarget,
        scale: Scale,
        provisioned: Mapping[str, Resource],
        after: Dependencies,
    ) -> Sequence[Resource]:
        around = self._register_network_objects(parent, workload, target, after)
        within = self._patience(workload)
        manifest = manifests.deployment(self.scope, workload, target, scale, self._pod(workload, target), within)
        # Depend on the Secrets and scripts of all tiers of the slot, so no pod starts before its Secret exists.
        depends_on = [*around, *provisioned.values(), *self.foundation.resources]
        # A running autoscaler sets the number of replicas, so ignore changes of this input.
        ignored = ["spec.replicas"] if workload.autoscaled is not None else None
        path = workload.path or f"app.{workload.tier}"
        running = self._register_and_wait(parent, manifest, depends_on, within, path, ignore_changes=ignored)
        if workload.autoscaled is not None:
            scaler = manifests.autoscaler(self.scope, workload, target, scale)
            self.object(parent, scaler, [running])
        return [running]

    def prepare_single(
        self, parent: Resource, workload: Workload, target: SlotTarget, provisioned: Mapping[str, Resource]
    ) -> tuple[LiveObject, Sequence[Resource]]:
        around = self._register_network_objects(parent, workload, target)
        manifest = manifests.single_process(self.scope, workload, target, self._pod(workload, target))
        within = self._patience(workload) + workload.stop_within
        single = LiveObject(
            path=self.app.path(workload.tier), type=STATEFUL_SET, name=workload.tier, inputs=manifest, within=within
        )
        return single, [*around, *provisioned.values()]

    def prepare_jobs(
        self,
        parent: Resource,
        workloads: Sequence[Workload],
        target: SlotTarget,
        provisioned: Mapping[str, Resource],
        after: Dependencies,
    ) -> tuple[Mapping[str, LiveObject], Sequence[Resource]]:
        objects: dict[str, LiveObject] = {}
        for workload in workloads:
            for job in workload.jobs:
                pod = self._task_pod(workload, target, job)
                manifest = manifests.scheduled_job(self.scope, workload, job, target, pod)
                name = manifest["metadata"]["name"]
                objects[name] = LiveObject(path=job.path, type=CRON_JOB, name=name, inputs=manifest, within=job.timeout)
        return objects, [*provisioned.values()] if objects else []

    def live_objects(self, target: SlotTarget) -> Mapping[str, LiveObject]:
        return {}

    def deploy_live_object(self, parent: Resource, live_object: LiveObject, after: Dependencies) -> Resource:
        return self._register_and_wait(
            parent,
            self._with_preview_name(dict(live_object.inputs), live_object.name),
            [*after, *self.foundation.resources],
            live_object.within,
            live_object.path,
            name=live_object.name,
            delete_before_replace=True,  # Otherwise the process could run twice.
        )

    def rescaled(self, entry: Entry, scales: Mapping[str, Scale]) -> DesiredState | None:
        """Return the desired state of a kept slot's resource at the configured scale, or None if nothing changes.

        The scale is the number of replicas, or the limits of the autoscaler.
        """
        scale = scales.get(str(entry.tier)) if entry.runs else None
        if not scale:
            return None
        desired = self._at(entry, scale)
        return desired if desired.inputs != entry.inputs else None

    def resumed(self, entry: Entry, scales: Mapping[str, Scale]) -> DesiredState:
        scale = scales.get(str(entry.tier))
        return self._at(entry, scale or Scale(replicas=entry.inputs["spec"].get("replicas", 1)))

    def _at(self, entry: Entry, scale: Scale) -> DesiredState:
        inputs, ignored = copy.deepcopy(dict(entry.inputs)), None
        spec = inputs["spec"]
        if "maxReplicas" in spec:
            spec |= {"minReplicas": scale.replicas, "maxReplicas": scale.most or spec["maxReplicas"]}
        elif scale.most is None:
            spec["replicas"] = scale.replicas
        else:
            # A running autoscaler sets the number of replicas, so ignore changes of this input.
            ignored = ["spec.replicas"]
        hooks = errors.explain(f"environment.tiers.{entry.tier}", inputs, self.cluster.context, impact=self.impact)
        return DesiredState(
            inputs=inputs, hooks=hooks, timeouts=limit(spec.get("progressDeadlineSeconds", 60)), ignore_changes=ignored
        )


def data_resources(
    context: Context, workloads: Sequence[Workload | DatabaseCluster]
) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """Return the resources that will hold the data of `workloads`: resource name → type token and inputs."""
    scope, checkpoint = _scope(context), context.checkpoint
    resources: dict[str, tuple[str, Mapping[str, Any]]] = {}
    if context.environment.cluster.namespace.create:
        resources["namespace"] = (NAMESPACE, with_data_label(checkpoint, NAMESPACE, manifests.namespace(scope)))
    for workload in workloads:
        if isinstance(workload, DatabaseCluster):
            resources[workload.name] = (
                CLUSTER,
                with_data_label(checkpoint, CLUSTER, cnpg.cluster(scope, workload, "")),
            )
            continue
        for volume in _volumes(workload):
            holds_data = volume.name in context.app.volumes or services.holds_data(workload.tier)
            claim = manifests.claim(scope, workload.tier, volume)
            resources[volume.name] = (CLAIM, with_data_label(checkpoint, CLAIM, claim, holds_data=holds_data))
    return resources


def connect(context: Context, live: Slot | None, opts: ResourceOptions | None) -> Deployer:
    """Register the foundation in the environment's cluster, and return the deployer."""
    reader, scope = (
        inspector(keys.configured_location(context.app, context.environment, context.stack)),
        _scope(context),
    )
    describe_impact = partial(impact.describe_live, live, context.environment.url, context.checkpoint, reader)
    return KubernetesDeployer(
        context=context,
        live=live,
        scope=scope,
        inspector=reader,
        foundation=Foundation(context, scope, describe_impact, opts),
    )


def _scope(context: Context) -> Scope:
    return Scope.of_environment(context.app, context.environment.cluster, context.description.instance)


def _volumes(workload: Workload) -> Sequence[Volume]:
    members = replicated.members(workload) if isinstance(workload, Replicated) else ()
    return [member.volume for member in members] or workload.volumes
