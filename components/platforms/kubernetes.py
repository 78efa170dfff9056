"""The Kubernetes platform: workloads as objects of one namespace.

`manifests` and `traffic` render; `KubernetesPlatform` registers what they return, unchanged, so that what is tested,
scored and applied is the same. Objects are registered by their manifest and not through the SDK's classes: importing
those takes a fifth of a second at every preview (docs/adr/006-manifests.md). What the provider is relied on for
(pulumi-kubernetes 4): it applies server-side, waits for Deployments, StatefulSets and Jobs, and makes a Job anew when
its template changes.
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
"""Annotations of a route that may be there already, made by another resource of the same object."""
REACH_WITHIN = 60
"""Seconds until a Service must lead to what is ready behind it."""


@dataclass(frozen=True, kw_only=True)
class KubernetesPlatform:
    """The verbs of `Platform` in one namespace of a cluster."""

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
        own = {str(tier): f"{follow} deployment/{tier}-{live} --all-pods" for tier in self.app.services}
        data = {tier: self.environment.size(tier).ha for tier in self.environment.data(self.app)}
        several = "--selector app.kubernetes.io/component={0} --all-containers --prefix"
        return own | {
            str(tier): f"{follow} {several.format(tier) if ha else f'statefulset/{tier}'}" for tier, ha in data.items()
        }

    # ------------------------------------------------------------------ objects

    def object(self, parent: Resource, manifest: Manifest, after: Dependencies = (), **more: Any) -> CustomResource:
        """Register a manifest. Everything but the namespace waits for the ground."""
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
        """Register what the provider waits for; when it fails or takes too long the error says why."""
        hooks = cluster.explain(path, manifest, self.cluster.context, touched=touched or self.impact)
        return self.object(parent, manifest, after, hooks=hooks, custom_timeouts=_limit(within), **more)

    def impact(self) -> str:
        """Return what a failure means for users: the live slot is asked."""
        if self.live is None:
            return impact.describe(None, self.url, (), lambda: False)
        ready = partial(cluster.available, self.cluster.context, self.scope.namespace, self._tiers_of(self.live))
        return impact.describe(self.live, self.url, impact.paths(self.checkpoint, self.live), ready)

    def _tiers_of(self, slot: Slot) -> Mapping[str, str]:
        """Return the labels of the Deployments of a slot."""
        return {"app.kubernetes.io/instance": self.scope.instance, LABEL_ROLE: "tier", LABEL_SLOT: str(slot)}

    # ------------------------------------------------------------------ secrets

    def prepare(self, parent: Resource, workloads: Sequence[Workload], place: Place | None) -> Mapping[str, Resource]:
        supplies: dict[str, Resource] = {}
        for workload in workloads:
            owner, elsewhere = manifests.target(workload, place), self.cluster.secrets
            account = manifests.account(self.scope, workload, place)
            supplies[f"{owner}/account"] = self.object(parent, account)
            if self._own(workload):
                made = self._secret(workload, place)
                supplies[f"{owner}/secrets"] = self.object(
                    parent, made, additional_secret_outputs=["data", "stringData"]
                )
            for secret in workload.secrets:
                reference = elsewhere.get(secret.name)
                if reference and reference.store:
                    made = manifests.external_secret(self.scope, owner, workload.tier, secret, reference, place)
                    supplies[f"{owner}/{secret.name}"] = self.object(parent, made)
        return supplies

    def _secret(self, workload: Workload, place: Place | None) -> Manifest:
        """Return the Secret with the values of a workload's secrets that are in the stack file."""
        own = self._own(workload)
        values: dict[str, Input[str]] = {
            secret.name: self.secrets.apply(lambda values, name=secret.name: values[name]) for secret in own
        }
        return manifests.secret(self.scope, manifests.target(workload, place), workload.tier, own, values, place)

    def resealed(self, entry: Entry, workload: Workload, place: Place) -> Wanted | None:
        if not self._own(workload) or (made := self._secret(workload, place))["metadata"]["name"] != entry.name:
            return None
        return Wanted(inputs=made, secret_outputs=["data", "stringData"])

    def _own(self, workload: Workload) -> list[Secret]:
        """The secrets whose values are in the stack file."""
        return [secret for secret in workload.secrets if secret.name not in self.cluster.secrets]

    def _secret_sources(self, workload: Workload, place: Place | None) -> list[Manifest]:
        """Where the files of a workload's secrets come from, wherever their values are kept."""
        owner, elsewhere = manifests.target(workload, place), self.cluster.secrets
        own = self._own(workload)
        sources = [_source(manifests.secret_name(owner, own), {each.name: each.name for each in own})] if own else []
        for secret in workload.secrets:
            if reference := elsewhere.get(secret.name):
                brought = manifests.brought_name(owner, secret)
                key = reference.key if reference.secret else secret.name
                sources.append(_source(reference.secret or brought, {key: secret.name}))
        return sources

    def _key(self, workload: Workload, secret: Secret) -> Mapping[str, str]:
        """Where the cluster has the value of a secret of what is kept, as its objects name it."""
        reference = self.cluster.secrets.get(secret.name)
        if not reference:
            return {"name": manifests.secret_name(workload.tier, self._own(workload)), "key": secret.name}
        if reference.secret:
            return {"name": reference.secret, "key": reference.key}
        return {"name": manifests.brought_name(workload.tier, secret), "key": secret.name}

    # ------------------------------------------------------------------ workloads

    def _patience(self, workload: Workload) -> float:
        """Seconds until a workload has failed to start: to find a node and get its image, and then what it asks for."""
        return workload.start_within + self.cluster.schedule_within

    def _pod(self, workload: Workload, place: Place | None, task: Task | None = None) -> Manifest:
        told = variables(workload, place, self.app.api.port if self.app.api else None, task)
        return manifests.workload_pod(self.scope, workload, place, told, self._secret_sources(workload, place), task)

    def _around(
        self, parent: Resource, workload: Workload, place: Place | None, after: Dependencies = ()
    ) -> list[Resource]:
        """What stands around the pods of a workload: its address, who may connect, its budget."""
        # What is shared may be needed by a slot that is kept, whatever the application says now.
        needed = place is None or any(workload.tier in service.needs for service in self.app.services.values())
        made = [
            *traffic.workload_policies(
                self.scope, workload, place, self.cluster, routed=workload.tier in ("web", "api"), needed=needed
            ),
            *([manifests.service(self.scope, workload, place)] if workload.port else []),
            manifests.disruption_budget(self.scope, workload, place),
        ]
        return [self.object(parent, each, after) for each in made]

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
        made = self._previewed(manifests.stateful_set(self.scope, workload, self._pod(workload, None)))
        after = [*around, *supplies.values(), *self.ground.stands]
        return [
            self._awaited(
                parent,
                made,
                after,
                self._patience(workload) + workload.stop_within,
                workload.path or f"app.{workload.tier}",
                touched=lambda: SHARED,
                name=workload.tier,
                delete_before_replace=True,  # Never two over the same data.
            )
        ]

    def _keep_members(
        self, parent: Resource, workload: Replicated, supplies: Mapping[str, Resource]
    ) -> Sequence[Resource]:
        supplies = {**supplies, **self.prepare(parent, [workload.proxy], None)}
        around = [self.object(parent, each) for each in replicated.around(self.scope, workload)]
        members = replicated.members(workload)
        around += [self.data(parent, workload.tier, each.volume, self.ground) for each in members]
        running: list[Resource] = []
        # Those that are there are changed one after the other. New ones start together, for two have to agree who is first;
        # and so do those with another password than the others have.
        one_by_one = all(self._talks(each) for each in members)
        for each in members:
            spec = self._pod(self._unchanged(each.workload, each.resource), None)
            running.append(
                self._awaited(
                    parent,
                    self._previewed(replicated.stateful_set(self.scope, workload, each, spec), each.resource),
                    [*around, *supplies.values(), *self.ground.stands, *(running if one_by_one else ())],
                    self._patience(workload) + workload.stop_within,
                    f"app.{workload.tier}",
                    touched=lambda: SHARED,
                    name=each.resource,
                    delete_before_replace=True,  # Never two over the same data.
                )
            )
        made = replicated.deployment(
            self.scope, workload, self._pod(workload.proxy, None), self._patience(workload.proxy)
        )
        proxy = self._awaited(
            parent, made, [*running, *supplies.values()], self._patience(workload.proxy), f"app.{workload.tier}"
        )
        return [*running, proxy]

    def _unchanged(self, workload: W, resource: str) -> W:
        """Return the workload with its former command if it runs with that and with the same secrets, which it therefore reads."""
        known = self.checkpoint.of("kubernetes:apps/v1:StatefulSet", resource)
        if not (workload.former and known):
            return workload
        template = known.inputs["spec"]["template"]
        same = template["metadata"]["annotations"] == manifests.secret_versions(workload)
        same = same and template["spec"]["containers"][0]["command"] == list(workload.former)
        return replace(workload, command=workload.former) if same else workload

    def _talks(self, member: replicated.Member) -> bool:
        """Whether a member is there that those made now can talk to."""
        known = self.checkpoint.of("kubernetes:apps/v1:StatefulSet", member.resource)
        if known is None or known.inputs["metadata"]["name"] != member.name:
            return False
        notes = known.inputs["spec"]["template"]["metadata"]["annotations"]
        return notes == manifests.secret_versions(member.workload)

    def schedule(
        self, parent: Resource, workload: Workload, times: Sequence[Timed], supplies: Mapping[str, Resource]
    ) -> Sequence[Resource]:
        kept = self.keep(parent, workload, supplies)
        for each in times:
            made = manifests.cron_job(self.scope, workload, each, self._pod(workload, None, each))
            self.object(parent, made, [*kept, *supplies.values()])
        return kept

    def _previewed(self, made: Manifest, resource: str | None = None) -> Manifest:
        """A StatefulSet that is going to be made anew, as a preview can show it: by another name.

        The provider tries a preview's objects by a dry run, over those that are there, and takes another name where the
        server calls a field immutable. Of a StatefulSet the server says it in other words (pulumi-kubernetes, await.go).
        """
        there = self.checkpoint.of("kubernetes:apps/v1:StatefulSet", resource or made["metadata"]["name"])
        if not (pulumi.runtime.is_dry_run() and there and there.inputs["spec"]["selector"] != made["spec"]["selector"]):
            return made
        return made | {"metadata": made["metadata"] | {"name": f"{made['metadata']['name']}-preview"}}

    def data(self, parent: Resource, tier: str, volume: Volume, ground: "Ground") -> CustomResource:
        """A volume that outlives every release."""
        made = manifests.claim(self.scope, tier, volume)
        path = f"environment.tiers.{tier}.storage"
        hooks = cluster.explain(path, made, self.cluster.context, touched=self.impact)
        options = of_data(self.environment.protect_data)
        return register(parent, made, ground.provider, ground.namespace, hooks=hooks, **options)

    def stores(self, workloads: Sequence[Workload | DatabaseCluster]) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
        own = {"namespace": (guard.NAMESPACE, manifests.namespace(self.scope))} if self.cluster.namespace.create else {}
        claims = {
            volume.name: (guard.CLAIM, manifests.claim(self.scope, workload.tier, volume))
            for workload in workloads
            if isinstance(workload, Workload)
            for volume in _volumes(workload)
        }
        several = [each for each in workloads if isinstance(each, DatabaseCluster)]
        return own | claims | {each.name: (guard.SEVERAL, cnpg.cluster(self.scope, each, "")) for each in several}

    def keep_several(self, parent: Resource, wanted: DatabaseCluster) -> Sequence[Resource]:
        protected_by, after = self._owner(parent, wanted)
        after += [self.object(parent, each) for each in cnpg.policies(self.scope, wanted)]
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
            **of_data(self.environment.protect_data),  # the claims go with it
        )
        if wanted.archive:
            self.object(parent, barman.times(self.scope, wanted.name, wanted.archive), [instances])
        budget = self.object(parent, cnpg.pooler_budget(self.scope, wanted))
        pooler = cnpg.pooler(self.scope, wanted)
        within = wanted.start_within + self.cluster.schedule_within
        path = wanted.pooler.path
        return [instances, self._awaited(parent, pooler, [instances, budget], within, path, touched=lambda: SHARED)]

    def _archive(self, parent: Resource, name: str, archive: Archive) -> list[Resource]:
        """What takes the changes of a database, before there are any."""
        vault = archive.vault
        kept = self.keep(parent, vault, self.prepare(parent, [vault], None))
        access, secret = self._key(vault, archive.access), self._key(vault, archive.secret)
        return [*kept, self.object(parent, barman.store(self.scope, name, archive, access, secret))]

    def _owner(self, parent: Resource, wanted: DatabaseCluster) -> tuple[str, list[Resource]]:
        """The Secret with the name and password of a database's owner, and what of it is made here."""
        reference, secret = self.cluster.secrets.get(wanted.password.name), wanted.password
        name = cnpg.owner_name(wanted, reference)
        if reference and reference.secret:
            return name, []
        if reference:
            brought = manifests.external_secret(self.scope, wanted.name, wanted.tier, secret, reference, None)
            return name, [self.object(parent, cnpg.owner_brought(brought, wanted))]
        made = cnpg.owner(self.scope, wanted, self.secrets.apply(lambda values: values[secret.name]))
        return name, [self.object(parent, made, additional_secret_outputs=["data", "stringData"])]

    def reach(self, parent: Resource, elsewhere: Elsewhere) -> Sequence[Resource]:
        made = traffic.elsewhere_policy(self.scope, elsewhere)
        return [self.object(parent, made)]

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
        made = manifests.deployment(self.scope, workload, place, scale, self._pod(workload, place), within)
        # All supplies of the slot, not only its own: a pod is not started to wait for a Secret.
        needed = [*around, *supplies.values(), *self.ground.stands]
        # Once it runs an autoscaler may have the say; what it says is no change of ours.
        theirs = ["spec.replicas"] if workload.autoscaled is not None else None
        path = f"app.{workload.tier}"
        running = self._awaited(parent, made, needed, within, path, ignore_changes=theirs)
        if workload.autoscaled is not None:
            scaler = manifests.autoscaler(self.scope, workload, place, scale)
            self.object(parent, scaler, [running])
        return [running]

    def rescaled(self, entry: Entry, scales: Mapping[TierName, Scale]) -> Wanted | None:
        """Replicas and autoscaling bounds of what is live follow the configuration; all else of it is a release."""
        scale = scales.get(TierName(str(entry.tier))) if entry.runs else None
        if not scale:
            return None
        wanted = self._at(entry, scale)
        return wanted if wanted.inputs != entry.inputs else None

    def absent_images(self, images: Collection[str]) -> Sequence[str]:
        # Nodes pull from registries that only they may be able to reach.
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
        inputs, theirs = copy.deepcopy(dict(entry.inputs)), None
        spec = inputs["spec"]
        if "maxReplicas" in spec:
            spec |= {"minReplicas": scale.replicas, "maxReplicas": scale.most or spec["maxReplicas"]}
        elif scale.most is None:
            spec["replicas"] = scale.replicas
        else:
            # Once it runs an autoscaler has the say; what it says is no change of ours.
            theirs = ["spec.replicas"]
        hooks = cluster.explain(f"environment.tiers.{entry.tier}", inputs, self.cluster.context, touched=self.impact)
        return Wanted(
            inputs=inputs, hooks=hooks, timeouts=_limit(spec.get("progressDeadlineSeconds", 60)), theirs=theirs
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
        """A Job that runs to its end, made anew if it failed the last time."""
        attempt = self.checkpoint.attempt(name)
        tried = dict(labels) | ({LABEL_ATTEMPT: str(attempt)} if attempt > 1 else {})
        made = manifests.job(self.scope, name, tried, tried | dict(needs), spec, within + REACH_WITHIN)
        job = self._awaited(parent, made, [*after, *self.ground.stands], within + self.cluster.schedule_within, path)
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
        told = dict(workload.env) | dict(task.env)
        addresses = [
            f"{told[f'{need.upper()}_HOST']}:{told[f'{need.upper()}_PORT']}" for need in workload.needs if need != "api"
        ]
        if addresses:
            # A Service leads to a pod that is ready only once each node has heard of it, and a Job is not tried again.
            words = ["reach", str(REACH_WITHIN), *addresses]
            spec = manifests.with_first(spec, self._tool("reach", manifests.user(workload), *words))
        return self._job(parent, name, labels, needs, spec, task.timeout, task.path, [*supplies.values(), *after])

    def smoke(self, parent: Resource, routes: Sequence[Route], place: Place, after: Dependencies) -> Output[Resource]:
        gateway = self.cluster.gateway
        within = round(gateway.within)
        asked = [gateway.inside, self.cluster.host, str(place.slot), str(within), smoke_checks(self.app, routes)]
        made = self._tool("smoke", TOOLBOX_USER, "smoke", *asked)
        spec = manifests.pod(self.scope, made, TOOLBOX_USER, manifests.scratch_names(["/tmp"]))
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
        way = self.object(parent, traffic.gateway_policy(self.scope, self.cluster))
        own = traffic.own_gateway(self.scope, self.cluster)
        return self.object(parent, own, [way]) if own else way

    def expose(self, parent: Resource, routes: Sequence[Route], place: Place, after: Dependencies) -> Dependencies:
        # Whoever has a page of the release before is led to what is live from here on; its pods answer for a while yet.
        labels = self.scope.labels(self.app.name, "preview", place)
        spec = traffic.slot_spec(self.scope, self.cluster, routes, place)
        return [
            self.object(parent, traffic.http_route(self.scope, f"{self.app.name}-{place.slot}", labels, spec), after)
        ]

    def switch(
        self, parent: Resource, place: Place, routes: Sequence[Route] | None, count: int, after: Dependencies
    ) -> Output[Resource]:
        made = self._live_route(place, routes, count)
        if count > 1 and not self.checkpoint.of(traffic.HTTP_ROUTE, self.app.name):
            made["metadata"]["annotations"] = dict(TAKEN_OVER)
        hooks = cluster.explain(f"the switch to {place.slot}", made, self.cluster.context, touched=self.impact)
        if routes is None:
            hooks.before_create = hooks.before_update = [self._ask(place)]
        return _there(self.object(parent, made, after, hooks=hooks))

    def _live_route(self, place: Place, routes: Sequence[Route] | None, count: int) -> Manifest:
        """Render the one route that sends all traffic to a slot; without `routes` by those of the slot's own release."""
        spec = self._kept_spec(place) if routes is None else None
        found = place.release.routes if routes is None else routes
        spec = spec or traffic.slot_spec(self.scope, self.cluster, found, place)
        labels = self.scope.labels(self.app.name, "switch", place) | {LABEL_SWITCH: str(count)}
        live = {**spec, "rules": traffic.live_rules(spec["rules"])}
        return traffic.http_route(self.scope, self.app.name, labels, live)

    def put_back(
        self, parent: Resource, place: Place, count: int, after: Dependencies, *, beside: bool
    ) -> Output[Resource]:
        made = self._live_route(place, None, count)
        made["metadata"]["annotations"] = dict(TAKEN_OVER)
        # One update can't have two states of one resource. The second resource of this object leaves it where it is.
        stands_in = {"name": f"{self.app.name}-again", "retain_on_delete": True} if beside else {}
        hooks = cluster.explain(f"the switch to {place.slot}", made, self.cluster.context, touched=self.impact)
        return _there(self.object(parent, made, after, hooks=hooks, **stands_in))

    def _ask(self, place: Place) -> ResourceHook:
        """Before traffic comes back to a slot: that the cluster still calls it available."""
        cluster.expect()

        def ask(_: ResourceHookArgs) -> None:
            found = self._tiers_of(place.slot)
            cluster.check_available(self.cluster.context, self.scope.namespace, found, self.impact)

        return ResourceHook(f"ask-{place.slot}", ask)

    # ------------------------------------------------------------------ monitoring

    def watch(
        self,
        parent: Resource,
        watched: Watched,
        exporters: Mapping[TierName, Workload],
        after: Mapping[TierName, Sequence[Resource]],
    ) -> None:
        named = {str(tier): each for tier, each in exporters.items()}
        supplies = self.prepare(parent, list(exporters.values()), None)
        open_ways = [self.object(parent, each) for each in operated.policies(self.scope, watched, named)]
        for tier, each in exporters.items():
            around = [manifests.service(self.scope, each, None), manifests.disruption_budget(self.scope, each, None)]
            stands = [*open_ways, *(self.object(parent, one) for one in around), *self.ground.stands]
            made = operated.deployment(self.scope, each, tier, self._pod(each, None))
            needed = [*supplies.values(), *stands, *after[tier]]
            self._awaited(parent, made, needed, self._patience(each), each.image.path, touched=self.impact)
        asked = operated.monitors(self.scope, watched, named)
        for each in [*asked, operated.rules(self.scope, watched), operated.grafana(self.scope, watched)]:
            self.object(parent, each)

    def announce(self, parent: Resource, watched: Watched, live: Output[Mapping[str, str]]) -> None:
        told = {name: live.apply(lambda live, name=name: live[name]) for name in ("release", "slot")}
        self.object(parent, operated.released(self.scope, watched, told))

    def _kept_spec(self, place: Place) -> Manifest | None:
        """The way into a slot that has this release, as it was made: its hosts and ports may not be today's."""
        own = {LABEL_ROLE: "preview", LABEL_SLOT: str(place.slot), LABEL_RELEASE: str(place.release)}.items()
        found = (entry for entry in self.checkpoint.entries if entry.custom and own <= entry.labels.items())
        return next((dict(entry.inputs["spec"]) for entry in found), None)


def check(settings: Settings) -> None:
    """Find out whether the cluster that the environment names is there, and has what it asks for.

    Raises:
        RunError: its context is not there, or nothing answers.
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
    """Return the cluster that the environment names."""
    return KubernetesPlatform(
        app=settings.app,
        environment=settings.environment,
        checkpoint=checkpoint,
        secrets=settings.sealed,
        live=live,
    )


class Ground(ComponentResource):
    """What every object of a stack stands on: the cluster, the namespace and its limits, who may talk at all."""

    def __init__(self, platform: KubernetesPlatform) -> None:
        super().__init__("tiers:kubernetes:Ground", "ground")
        scope, settings = platform.scope, platform.cluster.namespace
        version = metadata.version("pulumi-kubernetes")
        # The SDK's class would read KUBECONFIG as one file; the provider itself takes it as kubectl does, a list of them.
        given = {"context": platform.cluster.context}
        self.provider = ProviderResource("kubernetes", "cluster", given, below(self, version=version))
        self.namespace: list[Resource] = []
        if settings.create:
            options = of_data(platform.environment.protect_data)
            self.namespace.append(register(self, manifests.namespace(scope), self.provider, **options))
        made = [manifests.quota(scope, settings.quota)] if settings.quota else []
        made += [manifests.limit_range(scope, settings.limits)] if settings.limits else []
        made += traffic.ground_policies(scope)
        self.stands = [
            *self.namespace,
            *(register(self, each, self.provider, self.namespace) for each in made),
        ]
        # Tiers that share one say the same of its size.
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
    """A manifest as a resource: of the type the SDK's class would have, and of the object's own name if not of another."""
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
