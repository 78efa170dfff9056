"""Kubernetes platform: workloads as objects of one namespace.

`manifests` and `traffic` render objects, and `KubernetesPlatform` registers them unchanged: the objects that are
tested, scored and applied are the same. Objects are registered by their manifest and not through the SDK's classes,
whose import takes a fifth of a second in every preview (docs/adr/006-manifests.md). The program relies on these
properties of the provider (pulumi-kubernetes 4): it applies server-side, waits for Deployments, StatefulSets and
Jobs, and replaces a Job when its template changes.
"""

import copy
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import pulumi
from pulumi import (
    ComponentResource,
    CustomResource,
    CustomTimeouts,
    Input,
    Output,
    ProviderResource,
    Resource,
    ResourceHook,
    ResourceHookArgs,
)

from .. import guard
from ..alerts import Watched
from ..checkpoint import LABEL_ATTEMPT, LABEL_RELEASE, LABEL_ROLE, LABEL_SLOT, Checkpoint, Entry
from ..config import App, Environment, Kubernetes, Settings, TierName
from ..names import LABEL_SWITCH
from ..options import below, of_data
from ..release import Slot
from ..workload import (
    Archive,
    DatabaseCluster,
    Elsewhere,
    Replicated,
    Resources,
    Route,
    Scale,
    Secret,
    Task,
    Timed,
    Volume,
    Workload,
)
from . import (
    SHARED,
    Dependencies,
    Place,
    Wanted,
    barman,
    cluster,
    cnpg,
    impact,
    manifests,
    operated,
    replicated,
    smoke_checks,
    traffic,
    variables,
)
from .manifests import Manifest, Scope

TOOLBOX = Path(__file__).with_name("toolbox.py").read_text()
TOOLBOX_USER = 10_001
SMALL = Resources(cpu=0.5, memory=64 * 2**20, reserve=0.01)
W = TypeVar("W", bound=Workload)
TAKEN_OVER = {"pulumi.com/patchFieldManager": "tiers-switch", "pulumi.com/patchForce": "true"}
"""Annotations of a route that may exist already, created by another resource for the same object."""
REACH_WITHIN = 60
"""Seconds a task waits until the Services it needs accept connections."""


@dataclass(frozen=True, kw_only=True)
class KubernetesPlatform:
    """Operations of `Platform` in one namespace of a cluster."""

    app: App
    environment: Environment
    checkpoint: Checkpoint
    secrets: Output[Mapping[str, str]]
    live: Slot | None

    @property
    def cluster(self) -> Kubernetes:
        return self.environment.cluster

    @cached_property
    def scope(self) -> Scope:
        return Scope.of(self.app.name, self.cluster, f"{self.app.name}-{pulumi.get_stack()}")

    @property
    def provider(self) -> ProviderResource:
        return self.ground.provider

    @property
    def foundation(self) -> Sequence[Resource]:
        return self.ground.stands

    @cached_property
    def ground(self) -> "Ground":
        return Ground(self)

    @property
    def url(self) -> str:
        return self.environment.url

    @property
    def namespace(self) -> str:
        return self.scope.namespace

    def logs(self, live: Slot) -> Mapping[str, str]:
        follow = (
            f"kubectl --context {shlex.quote(self.cluster.context)} --namespace {self.scope.namespace} logs --follow"
        )
        slot_tiers = {str(tier): f"{follow} deployment/{tier}-{live} --all-pods" for tier in self.app.services}
        data = {tier: self.environment.size(tier).ha for tier in self.environment.data(self.app)}
        several = "--selector app.kubernetes.io/component={0} --all-containers --prefix"
        return slot_tiers | {
            str(tier): f"{follow} {several.format(tier) if ha else f'statefulset/{tier}'}" for tier, ha in data.items()
        }

    # ------------------------------------------------------------------ objects

    def object(self, parent: Resource, manifest: Manifest, after: Dependencies = (), **more: Any) -> CustomResource:
        """Register a manifest. Every object depends on the namespace."""
        return register(parent, manifest, self.ground.provider, [*self.ground.namespace, *after], **more)

    def _awaited(
        self,
        parent: Resource,
        manifest: Manifest,
        after: Dependencies,
        within: float,
        path: str,
        touched: Callable[[], str] | None = None,
        **more: Any,
    ) -> CustomResource:
        """Register an object that the provider waits for. If that fails or takes too long, the error explains why."""
        hooks = cluster.explain(path, manifest, self.cluster.context, touched=touched or self.impact)
        return self.object(parent, manifest, after, hooks=hooks, custom_timeouts=_limit(within), **more)

    def impact(self) -> str:
        """Return the effect of a failure on users, as probed at the live slot."""
        if self.live is None:
            return impact.describe(None, self.url, (), lambda: False)
        ready = partial(cluster.available, self.cluster.context, self.scope.namespace, self._tiers_of(self.live))
        return impact.describe(self.live, self.url, impact.paths(self.checkpoint, self.live), ready)

    def _tiers_of(self, slot: Slot) -> Mapping[str, str]:
        """Return the labels of a slot's Deployments."""
        return {"app.kubernetes.io/instance": self.scope.instance, LABEL_ROLE: "tier", LABEL_SLOT: str(slot)}

    # ------------------------------------------------------------------ secrets

    def prepare(self, parent: Resource, workloads: Sequence[Workload], place: Place | None) -> Mapping[str, Resource]:
        supplies: dict[str, Resource] = {}
        for workload in workloads:
            owner, references = manifests.target(workload, place), self.cluster.secrets
            account = manifests.account(self.scope, workload, place)
            supplies[f"{owner}/account"] = self.object(parent, account)
            if self._own(workload):
                manifest = self._secret(workload, place)
                supplies[f"{owner}/secrets"] = self.object(
                    parent, manifest, additional_secret_outputs=["data", "stringData"]
                )
            for secret in workload.secrets:
                reference = references.get(secret.name)
                if reference and reference.store:
                    manifest = manifests.external_secret(self.scope, owner, workload.tier, secret, reference, place)
                    supplies[f"{owner}/{secret.name}"] = self.object(parent, manifest)
        return supplies

    def _secret(self, workload: Workload, place: Place | None) -> Manifest:
        """Return the Secret of those of a workload's secrets whose values are in the stack file."""
        stored = self._own(workload)
        values: dict[str, Input[str]] = {
            secret.name: self.secrets.apply(lambda values, name=secret.name: values[name]) for secret in stored
        }
        return manifests.secret(self.scope, manifests.target(workload, place), workload.tier, stored, values, place)

    def resealed(self, entry: Entry, workload: Workload, place: Place) -> Wanted | None:
        if not self._own(workload) or (manifest := self._secret(workload, place))["metadata"]["name"] != entry.name:
            return None
        return Wanted(inputs=manifest, secret_outputs=["data", "stringData"])

    def _own(self, workload: Workload) -> list[Secret]:
        """Return the secrets whose values are in the stack file."""
        return [secret for secret in workload.secrets if secret.name not in self.cluster.secrets]

    def _secret_sources(self, workload: Workload, place: Place | None) -> list[Manifest]:
        """Return the volume sources of a workload's secret files, for every kind of secret."""
        owner, references = manifests.target(workload, place), self.cluster.secrets
        stored = self._own(workload)
        sources = (
            [_source(manifests.secret_name(owner, stored), {secret.name: secret.name for secret in stored})]
            if stored
            else []
        )
        for secret in workload.secrets:
            if reference := references.get(secret.name):
                external_name = manifests.brought_name(owner, secret)
                key = reference.key if reference.secret else secret.name
                sources.append(_source(reference.secret or external_name, {key: secret.name}))
        return sources

    def _key(self, workload: Workload, secret: Secret) -> Mapping[str, str]:
        """Return the reference to a secret of a stateful workload: name and key of the cluster's Secret."""
        reference = self.cluster.secrets.get(secret.name)
        if not reference:
            return {"name": manifests.secret_name(workload.tier, self._own(workload)), "key": secret.name}
        if reference.secret:
            return {"name": reference.secret, "key": reference.key}
        return {"name": manifests.brought_name(workload.tier, secret), "key": secret.name}

    # ------------------------------------------------------------------ workloads

    def _patience(self, workload: Workload) -> float:
        """Return the seconds a workload may take to start: to find a node, pull its image and pass its probe."""
        return workload.start_within + self.cluster.schedule_within

    def _pod(self, workload: Workload, place: Place | None, task: Task | None = None) -> Manifest:
        environment = variables(workload, place, self.app.api.port if self.app.api else None, task)
        return manifests.workload_pod(
            self.scope, workload, place, environment, self._secret_sources(workload, place), task
        )

    def _around(
        self, parent: Resource, workload: Workload, place: Place | None, after: Dependencies = ()
    ) -> list[Resource]:
        """Register the objects around a workload's pods: policies, Service and disruption budget."""
        # A kept slot may need a shared tier even if today's application does not.
        needed = place is None or any(workload.tier in service.needs for service in self.app.services.values())
        rendered = [
            *traffic.workload_policies(
                self.scope, workload, place, self.cluster, routed=workload.tier in ("web", "api"), needed=needed
            ),
            *([manifests.service(self.scope, workload, place)] if workload.port else []),
            manifests.disruption_budget(self.scope, workload, place),
        ]
        return [self.object(parent, manifest, after) for manifest in rendered]

    def keep(self, parent: Resource, workload: Workload, supplies: Mapping[str, Resource]) -> Sequence[Resource]:
        if isinstance(workload, Replicated):
            return self._keep_members(parent, workload, supplies)
        around = self._around(parent, workload, None)
        pods = manifests.service(self.scope, workload, None, pods=True)
        around.append(self.object(parent, pods))
        around += [
            self.data(parent, workload.tier, volume, self.ground)
            for volume in workload.volumes
            if volume.name not in self.app.volumes
        ]
        if workload.scripts:
            around.append(self.object(parent, manifests.scripts(self.scope, workload)))
        workload = self._unchanged(workload, workload.tier)
        manifest = self._previewed(manifests.stateful_set(self.scope, workload, self._pod(workload, None)))
        after = [*around, *supplies.values(), *self.ground.stands]
        return [
            self._awaited(
                parent,
                manifest,
                after,
                self._patience(workload) + workload.stop_within,
                workload.path or f"app.{workload.tier}",
                touched=lambda: SHARED,
                name=workload.tier,
                delete_before_replace=True,  # Two pods must never use the same data.
            )
        ]

    def _keep_members(
        self, parent: Resource, workload: Replicated, supplies: Mapping[str, Resource]
    ) -> Sequence[Resource]:
        supplies = {**supplies, **self.prepare(parent, [workload.proxy], None)}
        around = [self.object(parent, member) for member in replicated.around(self.scope, workload)]
        members = replicated.members(workload)
        around += [self.data(parent, workload.tier, member.volume, self.ground) for member in members]
        running: list[Resource] = []
        # Existing members are changed one after the other. New members start together, because two have to agree on
        # the primary. So do members that get another password than the others have.
        one_by_one = all(self._talks(member) for member in members)
        for member in members:
            spec = self._pod(self._unchanged(member.workload, member.resource), None)
            running.append(
                self._awaited(
                    parent,
                    self._previewed(replicated.stateful_set(self.scope, workload, member, spec), member.resource),
                    [*around, *supplies.values(), *self.ground.stands, *(running if one_by_one else ())],
                    self._patience(workload) + workload.stop_within,
                    f"app.{workload.tier}",
                    touched=lambda: SHARED,
                    name=member.resource,
                    delete_before_replace=True,  # Two pods must never use the same data.
                )
            )
        manifest = replicated.deployment(
            self.scope, workload, self._pod(workload.proxy, None), self._patience(workload.proxy)
        )
        proxy = self._awaited(
            parent, manifest, [*running, *supplies.values()], self._patience(workload.proxy), f"app.{workload.tier}"
        )
        return [*running, proxy]

    def _unchanged(self, workload: W, resource: str) -> W:
        """Return the workload with its former command if it runs with that command and with the same secrets."""
        deployed = self.checkpoint.of("kubernetes:apps/v1:StatefulSet", resource)
        if not (workload.former and deployed):
            return workload
        template = deployed.inputs["spec"]["template"]
        is_same = template["metadata"]["annotations"] == manifests.secret_versions(workload)
        is_same = is_same and template["spec"]["containers"][0]["command"] == list(workload.former)
        return replace(workload, command=workload.former) if is_same else workload

    def _talks(self, member: replicated.Member) -> bool:
        """Tell whether a member is deployed that can connect to members created now."""
        deployed = self.checkpoint.of("kubernetes:apps/v1:StatefulSet", member.resource)
        if deployed is None or deployed.inputs["metadata"]["name"] != member.name:
            return False
        annotations = deployed.inputs["spec"]["template"]["metadata"]["annotations"]
        return annotations == manifests.secret_versions(member.workload)

    def schedule(
        self, parent: Resource, workload: Workload, times: Sequence[Timed], supplies: Mapping[str, Resource]
    ) -> Sequence[Resource]:
        resources = self.keep(parent, workload, supplies)
        for timed in times:
            manifest = manifests.cron_job(self.scope, workload, timed, self._pod(workload, None, timed))
            self.object(parent, manifest, [*resources, *supplies.values()])
        return resources

    def _previewed(self, manifest: Manifest, resource: str | None = None) -> Manifest:
        """Return a StatefulSet under another name if a preview would fail to show its replacement.

        In a preview the provider tries each object by a dry run over the existing one. It takes another name where
        the server calls a field immutable. For a StatefulSet the server words this differently (pulumi-kubernetes,
        await.go).
        """
        deployed = self.checkpoint.of("kubernetes:apps/v1:StatefulSet", resource or manifest["metadata"]["name"])
        if not (
            pulumi.runtime.is_dry_run()
            and deployed
            and deployed.inputs["spec"]["selector"] != manifest["spec"]["selector"]
        ):
            return manifest
        return manifest | {"metadata": manifest["metadata"] | {"name": f"{manifest['metadata']['name']}-preview"}}

    def data(self, parent: Resource, tier: str, volume: Volume, ground: "Ground") -> CustomResource:
        """Create a volume that outlives every release."""
        manifest = manifests.claim(self.scope, tier, volume)
        path = f"environment.tiers.{tier}.storage"
        hooks = cluster.explain(path, manifest, self.cluster.context, touched=self.impact)
        options = of_data(self.environment.protect_data)
        return register(parent, manifest, ground.provider, ground.namespace, hooks=hooks, **options)

    def stores(self, workloads: Sequence[Workload | DatabaseCluster]) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
        namespace_entry = (
            {"namespace": (guard.NAMESPACE, manifests.namespace(self.scope))} if self.cluster.namespace.create else {}
        )
        claims = {
            volume.name: (guard.CLAIM, manifests.claim(self.scope, workload.tier, volume))
            for workload in workloads
            if isinstance(workload, Workload)
            for volume in _volumes(workload)
        }
        database_clusters = [workload for workload in workloads if isinstance(workload, DatabaseCluster)]
        return (
            namespace_entry
            | claims
            | {database.name: (guard.SEVERAL, cnpg.cluster(self.scope, database, "")) for database in database_clusters}
        )

    def keep_several(self, parent: Resource, wanted: DatabaseCluster) -> Sequence[Resource]:
        protected_by, after = self._owner(parent, wanted)
        after += [self.object(parent, policy) for policy in cnpg.policies(self.scope, wanted)]
        after += [self.object(parent, cnpg.scripts(self.scope, wanted))] if wanted.scripts else []
        after += self._archive(parent, wanted.name, wanted.archive) if wanted.archive else []
        within = wanted.instances * (wanted.start_within + self.cluster.schedule_within)
        instances = self._awaited(
            parent,
            cnpg.cluster(self.scope, wanted, protected_by),
            [*after, *self.ground.stands],
            within,
            f"app.{wanted.tier}",
            touched=lambda: SHARED,
            **of_data(self.environment.protect_data),  # deleting the Cluster deletes its claims
        )
        if wanted.archive:
            self.object(parent, barman.times(self.scope, wanted.name, wanted.archive), [instances])
        budget = self.object(parent, cnpg.pooler_budget(self.scope, wanted))
        pooler = cnpg.pooler(self.scope, wanted)
        within = wanted.start_within + self.cluster.schedule_within
        path = wanted.pooler.path
        return [instances, self._awaited(parent, pooler, [instances, budget], within, path, touched=lambda: SHARED)]

    def _archive(self, parent: Resource, name: str, archive: Archive) -> list[Resource]:
        """Deploy the archive proxy and the ObjectStore of a database cluster, which must exist before its first change."""
        proxy = archive.vault
        resources = self.keep(parent, proxy, self.prepare(parent, [proxy], None))
        access, secret = self._key(proxy, archive.access), self._key(proxy, archive.secret)
        return [*resources, self.object(parent, barman.store(self.scope, name, archive, access, secret))]

    def _owner(self, parent: Resource, wanted: DatabaseCluster) -> tuple[str, list[Resource]]:
        """Return the name of the Secret of a database's owner, and the resources that create it."""
        reference, secret = self.cluster.secrets.get(wanted.password.name), wanted.password
        name = cnpg.owner_name(wanted, reference)
        if reference and reference.secret:
            return name, []
        if reference:
            external = manifests.external_secret(self.scope, wanted.name, wanted.tier, secret, reference, None)
            return name, [self.object(parent, cnpg.owner_brought(external, wanted))]
        manifest = cnpg.owner(self.scope, wanted, self.secrets.apply(lambda values: values[secret.name]))
        return name, [self.object(parent, manifest, additional_secret_outputs=["data", "stringData"])]

    def reach(self, parent: Resource, elsewhere: Elsewhere) -> Sequence[Resource]:
        manifest = traffic.elsewhere_policy(self.scope, elsewhere)
        return [self.object(parent, manifest)]

    def run(
        self,
        parent: Resource,
        workload: Workload,
        place: Place,
        scale: Scale,
        supplies: Mapping[str, Resource],
        after: Dependencies,
    ) -> Sequence[Resource]:
        around = self._around(parent, workload, place, after)
        within = self._patience(workload)
        manifest = manifests.deployment(self.scope, workload, place, scale, self._pod(workload, place), within)
        # The supplies of all tiers of the slot: a pod must not start and then wait for a Secret.
        depends_on = [*around, *supplies.values(), *self.ground.stands]
        # A running autoscaler sets the replicas; its changes are not the program's.
        ignored = ["spec.replicas"] if workload.autoscaled is not None else None
        path = f"app.{workload.tier}"
        running = self._awaited(parent, manifest, depends_on, within, path, ignore_changes=ignored)
        if workload.autoscaled is not None:
            scaler = manifests.autoscaler(self.scope, workload, place, scale)
            self.object(parent, scaler, [running])
        return [running]

    def rescaled(self, entry: Entry, scales: Mapping[TierName, Scale]) -> Wanted | None:
        """Apply the configured replicas and autoscaling bounds to a kept resource of a tier.

        Every other change of a tier is a release.
        """
        scale = scales.get(TierName(str(entry.tier))) if entry.runs else None
        if not scale:
            return None
        desired = self._at(entry, scale)
        return desired if desired.inputs != entry.inputs else None

    def absent_images(self, images: Collection[str]) -> Sequence[str]:
        # Only the nodes may be able to reach their registries, so absent images can't be told.
        return ()

    def closed(self, entry: Entry) -> Wanted | None:
        if entry.role != "preview":
            return None
        spec = dict(entry.inputs["spec"])
        return Wanted(inputs={**entry.inputs, "spec": spec | {"rules": traffic.asked_rules(spec["rules"])}})

    def opened(self, entry: Entry) -> Wanted:
        return Wanted(inputs=entry.inputs)

    def revived(self, entry: Entry, scales: Mapping[TierName, Scale]) -> Wanted:
        scale = scales.get(TierName(str(entry.tier)))
        return self._at(entry, scale or Scale(replicas=entry.inputs["spec"].get("replicas", 1)))

    def _at(self, entry: Entry, scale: Scale) -> Wanted:
        inputs, ignored = copy.deepcopy(dict(entry.inputs)), None
        spec = inputs["spec"]
        if "maxReplicas" in spec:
            spec |= {"minReplicas": scale.replicas, "maxReplicas": scale.most or spec["maxReplicas"]}
        elif scale.most is None:
            spec["replicas"] = scale.replicas
        else:
            # A running autoscaler sets the replicas; its changes are not the program's.
            ignored = ["spec.replicas"]
        hooks = cluster.explain(f"environment.tiers.{entry.tier}", inputs, self.cluster.context, touched=self.impact)
        return Wanted(
            inputs=inputs, hooks=hooks, timeouts=_limit(spec.get("progressDeadlineSeconds", 60)), theirs=ignored
        )

    # ------------------------------------------------------------------ tasks

    def _job(
        self,
        parent: Resource,
        name: str,
        labels: Mapping[str, str],
        needs: Mapping[str, str],
        spec: Manifest,
        within: float,
        path: str,
        after: Dependencies,
    ) -> Output[Resource]:
        """Run a Job to its end. The attempt's label replaces a Job that failed in the last update."""
        attempt = self.checkpoint.attempt(name)
        attempt_labels = dict(labels) | ({LABEL_ATTEMPT: str(attempt)} if attempt > 1 else {})
        manifest = manifests.job(
            self.scope, name, attempt_labels, attempt_labels | dict(needs), spec, within + REACH_WITHIN
        )
        job = self._awaited(
            parent, manifest, [*after, *self.ground.stands], within + self.cluster.schedule_within, path
        )
        return _there(job)

    def finish(
        self,
        parent: Resource,
        workload: Workload,
        task: Task,
        place: Place,
        supplies: Mapping[str, Resource],
        after: Dependencies,
    ) -> Output[Resource]:
        name = f"{place.slot}-{workload.tier}-{task.name}"
        labels = self.scope.labels(f"{workload.tier}-{task.name}", "task", place, workload.tier)
        spec = self._pod(workload, place, task)
        needs = manifests.needs(workload, place)
        environment = dict(workload.env) | dict(task.env)
        addresses = [
            f"{environment[f'{need.upper()}_HOST']}:{environment[f'{need.upper()}_PORT']}"
            for need in workload.needs
            if need != "api"
        ]
        if addresses:
            # A Service routes to a ready pod only once each node has noticed it, and a Job is not retried.
            words = ["reach", str(REACH_WITHIN), *addresses]
            spec = manifests.with_first(spec, self._tool("reach", manifests.user(workload), *words))
        return self._job(parent, name, labels, needs, spec, task.timeout, task.path, [*supplies.values(), *after])

    def smoke(self, parent: Resource, routes: Sequence[Route], place: Place, after: Dependencies) -> Output[Resource]:
        gateway = self.cluster.gateway
        within = round(gateway.within)
        arguments = [gateway.inside, self.cluster.host, str(place.slot), str(within), smoke_checks(self.app, routes)]
        container = self._tool("smoke", TOOLBOX_USER, "smoke", *arguments)
        spec = manifests.pod(self.scope, container, TOOLBOX_USER, manifests.scratch_names(["/tmp"]))
        labels = self.scope.labels("smoke", "smoke", place)
        name = f"{place.slot}-smoke"
        return self._job(parent, name, labels, {}, spec, within + 30, f"smoke test of {place.slot}", after)

    def _tool(self, name: str, user: int, *words: str) -> Manifest:
        command = ["python3", "-c", TOOLBOX, *words]
        return manifests.container(
            name, self.environment.toolbox, user, SMALL, manifests.scratch_names(["/tmp"]), command
        )

    # ------------------------------------------------------------------ traffic

    def gateway(self, parent: Resource) -> Resource:
        smoke_policy = self.object(parent, traffic.gateway_policy(self.scope, self.cluster))
        gateway = traffic.own_gateway(self.scope, self.cluster)
        return self.object(parent, gateway, [smoke_policy]) if gateway else smoke_policy

    def expose(self, parent: Resource, routes: Sequence[Route], place: Place, after: Dependencies) -> Dependencies:
        # From here on pages of the slot's previous release are routed to the live slot. The previous release's pods
        # still answer for a while.
        labels = self.scope.labels(self.app.name, "preview", place)
        spec = traffic.slot_spec(self.scope, self.cluster, routes, place)
        return [
            self.object(parent, traffic.http_route(self.scope, f"{self.app.name}-{place.slot}", labels, spec), after)
        ]

    def switch(
        self, parent: Resource, place: Place, routes: Sequence[Route] | None, count: int, after: Dependencies
    ) -> Output[Resource]:
        manifest = self._live_route(place, routes, count)
        if count > 1 and not self.checkpoint.of(traffic.HTTP_ROUTE, self.app.name):
            manifest["metadata"]["annotations"] = dict(TAKEN_OVER)
        hooks = cluster.explain(f"the switch to {place.slot}", manifest, self.cluster.context, touched=self.impact)
        if routes is None:
            hooks.before_create = hooks.before_update = [self._ask(place)]
        return _there(self.object(parent, manifest, after, hooks=hooks))

    def _live_route(self, place: Place, routes: Sequence[Route] | None, count: int) -> Manifest:
        """Return the route that sends all traffic to a slot; with `routes` None it has the rules of the slot's own release."""
        spec = self._kept_spec(place) if routes is None else None
        slot_routes = place.release.routes if routes is None else routes
        spec = spec or traffic.slot_spec(self.scope, self.cluster, slot_routes, place)
        labels = self.scope.labels(self.app.name, "switch", place) | {LABEL_SWITCH: str(count)}
        live = {**spec, "rules": traffic.live_rules(spec["rules"])}
        return traffic.http_route(self.scope, self.app.name, labels, live)

    def put_back(
        self, parent: Resource, place: Place, count: int, after: Dependencies, *, beside: bool
    ) -> Output[Resource]:
        manifest = self._live_route(place, None, count)
        manifest["metadata"]["annotations"] = dict(TAKEN_OVER)
        # One update can't hold two states of one resource. So a second resource manages the same object, and its
        # deletion leaves the object in place.
        options = {"name": f"{self.app.name}-again", "retain_on_delete": True} if beside else {}
        hooks = cluster.explain(f"the switch to {place.slot}", manifest, self.cluster.context, touched=self.impact)
        return _there(self.object(parent, manifest, after, hooks=hooks, **options))

    def _ask(self, place: Place) -> ResourceHook:
        """Return a hook that checks before a switch back that the cluster still calls the slot's Deployments available."""
        cluster.expect()

        def ask(_: ResourceHookArgs) -> None:
            labels = self._tiers_of(place.slot)
            cluster.check_available(self.cluster.context, self.scope.namespace, labels, self.impact)

        return ResourceHook(f"ask-{place.slot}", ask)

    # ------------------------------------------------------------------ monitoring

    def watch(
        self,
        parent: Resource,
        watched: Watched,
        exporters: Mapping[TierName, Workload],
        after: Mapping[TierName, Sequence[Resource]],
    ) -> None:
        exporters_by_tier = {str(tier): exporter for tier, exporter in exporters.items()}
        supplies = self.prepare(parent, list(exporters.values()), None)
        policies = [self.object(parent, policy) for policy in operated.policies(self.scope, watched, exporters_by_tier)]
        for tier, exporter in exporters.items():
            around = [
                manifests.service(self.scope, exporter, None),
                manifests.disruption_budget(self.scope, exporter, None),
            ]
            prerequisites = [*policies, *(self.object(parent, one) for one in around), *self.ground.stands]
            manifest = operated.deployment(self.scope, exporter, tier, self._pod(exporter, None))
            depends_on = [*supplies.values(), *prerequisites, *after[tier]]
            self._awaited(
                parent, manifest, depends_on, self._patience(exporter), exporter.image.path, touched=self.impact
            )
        monitors = operated.monitors(self.scope, watched, exporters_by_tier)
        for item in [*monitors, operated.rules(self.scope, watched), operated.grafana(self.scope, watched)]:
            self.object(parent, item)

    def announce(self, parent: Resource, watched: Watched, live: Output[Mapping[str, str]]) -> None:
        labels = {name: live.apply(lambda live, name=name: live[name]) for name in ("release", "slot")}
        self.object(parent, operated.released(self.scope, watched, labels))

    def _kept_spec(self, place: Place) -> Manifest | None:
        """Return the deployed route's spec of a slot that has this release.

        Its hosts and ports may differ from today's.
        """
        labels = {LABEL_ROLE: "preview", LABEL_SLOT: str(place.slot), LABEL_RELEASE: str(place.release)}.items()
        entries = (entry for entry in self.checkpoint.entries if entry.custom and labels <= entry.labels.items())
        return next((dict(entry.inputs["spec"]) for entry in entries), None)


def check(settings: Settings) -> None:
    """Check that the cluster of the environment is available and serves the API groups that the environment needs.

    Raises:
        RunError: the context is missing, the API server does not answer, or an API group is missing.
    """
    cluster.check(settings.environment.cluster.context)
    if settings.environment.monitoring:
        cluster.check_served(
            settings.environment.cluster.context,
            operated.GROUP,
            "environment.monitoring",
            "install prometheus-operator in the cluster (make lab brings its kinds to the lab's), or take monitoring out",
        )
    if settings.environment.pooled(settings.app):
        cluster.check_served(
            settings.environment.cluster.context,
            cnpg.GROUP,
            "environment.tiers.database.ha",
            "install CloudNativePG's operator in the cluster (make lab brings it to the lab's), or take `ha` out",
        )
    if settings.environment.archived:
        cluster.check_served(
            settings.environment.cluster.context,
            barman.API.partition("/")[0],
            "environment.tiers.database.backup",
            "install CloudNativePG's Barman plugin, which keeps every change with `ha` and a bucket, or back up to a volume",
        )


def connect(settings: Settings, checkpoint: Checkpoint, live: Slot | None) -> KubernetesPlatform:
    """Return the platform of the cluster that the environment names."""
    return KubernetesPlatform(
        app=settings.app,
        environment=settings.environment,
        checkpoint=checkpoint,
        secrets=settings.sealed,
        live=live,
    )


class Ground(ComponentResource):
    """Resources that every object of a stack depends on: provider, namespace and its limits, base policies, tiers' volumes."""

    def __init__(self, platform: KubernetesPlatform) -> None:
        super().__init__("tiers:kubernetes:Ground", "ground")
        scope, settings = platform.scope, platform.cluster.namespace
        version = metadata.version("pulumi-kubernetes")
        # The SDK's class reads KUBECONFIG as one file; the provider itself reads it as kubectl does, as a list of
        # files.
        inputs = {"context": platform.cluster.context}
        self.provider = ProviderResource("kubernetes", "cluster", inputs, below(self, version=version))
        self.namespace: list[Resource] = []
        if settings.create:
            options = of_data(platform.environment.protect_data)
            self.namespace.append(register(self, manifests.namespace(scope), self.provider, **options))
        namespaced = [manifests.quota(scope, settings.quota)] if settings.quota else []
        namespaced += [manifests.limit_range(scope, settings.limits)] if settings.limits else []
        namespaced += traffic.ground_policies(scope)
        self.stands = [
            *self.namespace,
            *(register(self, item, self.provider, self.namespace) for item in namespaced),
        ]
        # Tiers that share a volume name the same size.
        owners = {name: tier for tier, service in platform.app.services.items() for name in service.volumes}
        for name, tier in owners.items():
            size = platform.environment.size(tier)
            volume = Volume(name=name, path="", size=size.capacity, storage_class=size.storage_class)
            self.stands.append(platform.data(self, tier, volume, self))
        self.register_outputs({"namespace": scope.namespace})


def register(
    parent: Resource,
    manifest: Manifest,
    provider: ProviderResource,
    after: Dependencies = (),
    name: str | None = None,
    **more: Any,
) -> CustomResource:
    """Register a manifest as a resource of the type that the SDK's class would have.

    `name` is the resource's name, by default that of the object.
    """
    group = manifest["apiVersion"] if "/" in manifest["apiVersion"] else f"core/{manifest['apiVersion']}"
    opts = below(parent, provider=provider, depends_on=after, **more)
    kind = f"kubernetes:{group}:{manifest['kind']}"
    return CustomResource(kind, name or manifest["metadata"]["name"], dict(manifest), opts)


def _volumes(workload: Workload) -> Sequence[Volume]:
    members = replicated.members(workload) if isinstance(workload, Replicated) else ()
    return [member.volume for member in members] or workload.volumes


def _there(resource: CustomResource) -> Output[Resource]:
    return resource.id.apply(lambda _: resource)


def _limit(within: float) -> CustomTimeouts:
    limit = f"{round(within) + 15}s"
    return CustomTimeouts(create=limit, update=limit)


def _source(name: str, files: Mapping[str, str]) -> Manifest:
    return {"secret": {"name": name, "items": [{"key": key, "path": path} for key, path in sorted(files.items())]}}
