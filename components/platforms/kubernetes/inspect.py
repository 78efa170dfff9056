"""Inspector of a stack in a cluster: availability checks, state of pods, logs, commands in pods."""

import json
import math
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pulumi import RunError
from urllib3.exceptions import HTTPError

from ...config import App, Environment
from ...context import Context
from ...model.names import (
    LABEL_COMPONENT,
    LABEL_INSTANCE,
    LABEL_NAME,
    LABEL_RELEASE,
    LABEL_ROLE,
    LABEL_SLOT,
    LABEL_SWITCH,
    ROLE_JOB,
)
from ...model.workload import DatabaseCluster, Route
from ...release.checkpoint import Checkpoint
from ...release.live import Routing
from ...release.planner import Slot
from ..base import ONCE_WITHIN, Inventory, JobRun, Line, Location, OneOff, VolumeRestore
from . import barman, cnpg, isolation, jobs, kubeconfig, one_off, operated, pod_exec, recovery, stopped
from .access import HOLD_DATA, KINDS
from .client import apps, connect, core, custom, dynamic, sdk
from .errors import label_selector
from .keys import object_key
from .objects import OF_SERVICES
from .pod_exec import PodSelector

_ROUTES = ("gateway.networking.k8s.io", "v1")


@dataclass(frozen=True, kw_only=True)
class KubernetesInspector:
    """Inspector of one namespace of a cluster. Implements `Inspector` and `InspectsClusters`."""

    location: Location

    def check(self, context: Context, checkpoint: Checkpoint, routes: Sequence[Route]) -> None:
        """Check that the cluster is available, and serves the API groups that the environment uses."""
        environment, cluster = context.environment, self.location.context
        kubeconfig.check(cluster)
        if environment.monitoring:
            check_served(
                cluster,
                operated.GROUP,
                "environment.monitoring",
                "install prometheus-operator in the cluster (`make lab` installs its kinds in the lab's cluster), or remove monitoring",
            )
        if environment.pooled(context.app):
            check_served(
                cluster,
                cnpg.GROUP,
                "environment.tiers.database.ha",
                "install CloudNativePG's operator in the cluster (`make lab` installs it in the lab's cluster), or remove `ha`",
            )
        if environment.archived:
            check_served(
                cluster,
                barman.API.partition("/")[0],
                "environment.tiers.database.backup",
                "install CloudNativePG's Barman plugin, which archives the changes of a database with `ha`, or back up to a volume",
            )

    def routing(self, environment: Environment) -> Routing:
        """Return the slot that the stack's HTTPRoute routes users to."""
        kubernetes = sdk()
        failures = (kubernetes.client.ApiException, kubernetes.config.ConfigException, HTTPError, OSError)
        source = f"HTTPRoute {self.location.app} of {self.location.instance}"
        try:
            return self._routing(source)
        except failures as error:
            return Routing(source=source, problem=" ".join(str(error).split())[:300])

    def _routing(self, source: str) -> Routing:
        kubernetes, namespace, not_found = sdk(), self.location.namespace, 404
        client = connect(self.location.context)
        labels: dict[str, str] = {}
        tiers = {"label_selector": f"{self._of_stack},{LABEL_ROLE}=tier,{LABEL_SLOT}"}
        listed = kubernetes.client.AppsV1Api(client).list_namespaced_deployment(namespace, **tiers).items
        running = frozenset(Slot(deployment.metadata.labels[LABEL_SLOT]) for deployment in listed)
        try:
            objects = kubernetes.client.CustomObjectsApi(client)
            listed = objects.get_namespaced_custom_object(*_ROUTES, namespace, "httproutes", self.location.app)
            labels |= listed["metadata"].get("labels") or {}
        except kubernetes.client.ApiException as error:
            if error.status != not_found:
                raise
        ours = labels.get(LABEL_INSTANCE) == self.location.instance and labels.get(LABEL_SLOT) in [*Slot]
        if not ours:
            return Routing(source=source, running=running, absent=True)
        number = labels.get(LABEL_SWITCH, "")
        return Routing(
            source=source,
            live=Slot(labels[LABEL_SLOT]),
            switches=int(number) if number.isdecimal() else None,
            running=running,
        )

    def replica_counts(self) -> Mapping[tuple[str, str], tuple[int, int]]:
        api = apps(self.location.context)
        in_namespace = (self.location.namespace,)
        label = {"label_selector": f"{self._of_stack},{OF_SERVICES}"}
        objects = [*api.list_namespaced_deployment(*in_namespace, **label).items]
        objects += api.list_namespaced_stateful_set(*in_namespace, **label).items
        entries: list[tuple[Mapping[str, str], int, int]] = [
            (item.metadata.labels, item.status.ready_replicas or 0, item.spec.replicas) for item in objects
        ]
        entries += [
            (
                database["metadata"]["labels"],
                database.get("status", {}).get("readyInstances", 0),
                database["spec"]["instances"],
            )
            for database in self._database_clusters(label["label_selector"])
        ]
        counts: dict[tuple[str, str], tuple[int, int]] = {}
        for labels, healthy, expected in entries:
            key = (labels.get(LABEL_SLOT, ""), labels[LABEL_COMPONENT])
            ready_before, expected_before = counts.get(key, (0, 0))
            counts[key] = (ready_before + healthy, expected_before + expected)
        return counts

    def _database_clusters(self, selector: str) -> list[dict[str, Any]]:
        """Return the CloudNativePG Clusters; an empty list if CloudNativePG is missing or the user may not list Clusters."""
        collection = (*cnpg.API.split("/"), self.location.namespace, "clusters")
        try:
            api = custom(self.location.context)
            return api.list_namespaced_custom_object(*collection, label_selector=selector)["items"]
        except sdk().client.ApiException as error:
            if error.status in (403, 404):
                return []
            raise

    def job_runs(self) -> Sequence[JobRun]:
        return jobs.scheduled_runs(
            self.location.context, self.location.namespace, f"{self._of_stack},{LABEL_ROLE}={ROLE_JOB}"
        )

    def is_ready(self, slot: Slot) -> bool:
        deployments = self._deployments(slot)
        return bool(deployments) and all(_available(deployment) for deployment in deployments)

    def check_ready(self, slot: Slot, touched: Callable[[], str]) -> None:
        deployments = self._deployments(slot)
        unavailable = [deployment.metadata.name for deployment in deployments if not _available(deployment)]
        if unavailable or not deployments:
            raise RunError(
                f"slot {slot} can't go live, because {'these Deployments are not available: ' + ', '.join(unavailable) if unavailable else 'it has no Deployments'}; {touched()}. Deploy a new release instead"
            )

    def _deployments(self, slot: Slot) -> list[Any]:
        labels = {LABEL_INSTANCE: self.location.instance, LABEL_ROLE: "tier", LABEL_SLOT: str(slot)}
        api, namespace = apps(self.location.context), self.location.namespace
        return api.list_namespaced_deployment(namespace, label_selector=label_selector(labels)).items

    def absent_images(self, images: Collection[str]) -> Sequence[str]:
        # Report no image as absent: perhaps only the nodes can connect to the registries, so this machine can't check images.
        return ()

    def execute(self, tier: str, slot: Slot | None, command: Sequence[str]) -> str:
        return self._execute(_labels_of(tier, slot), command)

    def run_with_input(self, workload: str, command: Sequence[str], line: str) -> str:
        return self._execute({LABEL_COMPONENT: workload}, command, line, ONCE_WITHIN)

    def _execute(self, labels: Mapping[str, str], command: Sequence[str], line: str = "", within: float = 60) -> str:
        return pod_exec.execute(self._pods(labels), command, line, within)

    def _pods(self, labels: Mapping[str, str]) -> PodSelector:
        return PodSelector(location=self.location, labels=labels)

    def run_once(self, environment: Environment, workload: str, name: str, command: Sequence[str]) -> str:
        within = environment.cluster.schedule_within
        return jobs.run_once(self.location.context, self.location.namespace, f"{workload}-{name}", command, within)

    def run_on_volumes(self, environment: Environment, restore: VolumeRestore, command: Sequence[str]) -> str:
        context, namespace, within = self.location.context, self.location.namespace, environment.cluster.schedule_within
        with stopped.stopped(self.location, restore.store, restore.ready_within + within):
            return jobs.run_once(context, namespace, f"{restore.workload}-backup", command, within, restore)

    def command_in(self, tier: str, slot: Slot | None, command: Sequence[str], *, terminal: bool) -> list[str]:
        pod, container = pod_exec.find(self._pods(_labels_of(tier, slot)))
        options = ["--stdin", "--tty"] if terminal else ["--stdin"]
        where = ["--context", self.location.context, "--namespace", self.location.namespace]
        return ["kubectl", *where, "exec", *options, pod, "--container", container, "--", *command]

    def one_off(
        self, environment: Environment, service: str, slot: Slot, command: Sequence[str], *, terminal: bool
    ) -> AbstractContextManager[OneOff]:
        return one_off.created(self.location, environment, _labels_of(service, slot), command, terminal=terminal)

    def remove_one_offs(self) -> list[str]:
        # Remove nothing, because Kubernetes deletes the Jobs with the Deployments that own them.
        return []

    def log_lines(self, since: float = 0) -> Iterator[Line]:
        """Yield the log lines of the stack's pods, including lines from before the last restart of a container."""
        # The API counts the seconds back from now.
        limit = {"since_seconds": max(math.ceil(time.time() - since), 1)} if since else {}
        api, namespace = core(self.location.context), self.location.namespace
        for pod in api.list_namespaced_pod(namespace, label_selector=self._of_stack).items:
            labels = pod.metadata.labels
            origin = labels[LABEL_COMPONENT], labels.get(LABEL_SLOT, ""), labels.get(LABEL_RELEASE, "")
            for container in pod.status.container_statuses or ():
                for previous in (True, False) if container.restart_count else (False,):
                    try:
                        text: str = api.read_namespaced_pod_log(
                            pod.metadata.name,
                            namespace,
                            container=container.name,
                            timestamps=True,
                            previous=previous,
                            **limit,
                        )
                    except sdk().client.ApiException:
                        continue
                    for line in text.splitlines():
                        when, _, message = line.partition(" ")
                        yield Line(when, *origin, message)

    def unexpected_routes(self, app: App, live: Slot) -> list[str]:
        return list(isolation.unexpected_routes(app, self._objects(live), self.location.namespace))

    @property
    def checked_objects(self) -> str:
        return "services, routes and policies"

    def _objects(self, slot: Slot) -> dict[str, list[Mapping[str, Any]]]:
        """Return kind → objects: Services, HTTPRoutes, NetworkPolicies, and the tier pods in `slot` or outside of slots."""
        api = dynamic(self.location.context)
        listed_objects: dict[str, list[Mapping[str, Any]]] = {}
        of_slot = f"{LABEL_ROLE}=tier,{LABEL_SLOT} notin ({slot.other})"
        for kind, labels in (("Service", ""), ("HTTPRoute", ""), ("NetworkPolicy", ""), ("Pod", of_slot)):
            group = KINDS[kind][0] if kind in KINDS else ""
            resource: Any = api.resources.get(kind=kind, group=group, preferred=True)
            listing = resource.get(namespace=self.location.namespace, label_selector=labels)
            listed_objects[kind] = listing.to_dict()["items"]
        return listed_objects

    # ------------------------------------------------------------------ database clusters

    def check_quorum(self, cluster: str) -> str:
        return recovery.check_quorum(self.location, cluster)

    def check_archive(self, cluster: str) -> str:
        return recovery.check_archive(self.location, cluster)

    def pool_database(self, cluster: str, database: str) -> None:
        recovery.pool_database(self.location, cluster, database)

    def recovered(self, cluster: DatabaseCluster, moment: datetime) -> AbstractContextManager[str]:
        return recovery.recovered(self.location, cluster, moment)

    def query_single_instance(self, workload: str, queries: Sequence[str], *, user: str, database: str) -> str:
        # Select the pod by its name label, because the pods of a cluster have the same component label.
        labels = {LABEL_NAME: workload}
        return pod_exec.sql(self.location, labels, *queries, user=user, database=database)

    # ------------------------------------------------------------------ repair

    def inventory(self, types: Iterable[str]) -> Inventory:
        """List the objects of a stack, with one request for each resource type in the stack's state.

        Skip a kind that the cluster lacks or that the user may not list. `Inventory.kinds` then does not include this kind.
        """
        api = connect(self.location.context)
        keys, kinds, stopped = set[str](), set[str](), dict[str, str]()
        for type_ in sorted(set(types)):
            path, kind = _path(type_, self.location.namespace), type_.rpartition(":")[2]
            if not path:
                continue
            status, listing = _get(api, path, self._of_stack)
            if status != 200:
                continue
            kinds.add(kind)
            for item in listing["items"]:
                key = object_key(kind, self.location.namespace, item["metadata"]["name"])
                keys.add(key)
                if item.get("spec", {}).get("replicas") == 0:
                    stopped[key] = "scaled to 0"
        return Inventory(keys=frozenset(keys), kinds=frozenset(kinds), stopped=stopped)

    def confirm(self, types: Mapping[str, str]) -> frozenset[str]:
        """Look up each object that `inventory` did not list, and return the keys of the existing objects.

        For example, `inventory` does not find an object if a person removed its labels. Only the status 404 means that an
        object does not exist.
        """
        api = connect(self.location.context)
        existing = set[str]()
        for key, type_ in types.items():
            path = _path(type_, self.location.namespace)
            status, _ = _get(api, f"{path}/{key.rpartition('/')[2]}", "")
            if status != 404:
                existing.add(key)
        return frozenset(existing)

    def remove_strays(self, resources: Sequence[Mapping[str, Any]]) -> list[str]:
        """Delete objects of a stack that are missing from the state (compared by uid), except objects that may hold data.

        Objects with an owner are skipped, because Kubernetes deletes them together with their owner.
        """
        uids_in_state = {_uid(resource) for resource in resources}
        api, namespace, removed = dynamic(self.location.context), self.location.namespace, list[str]()
        for kind, (group, _) in KINDS.items():
            if kind in HOLD_DATA:
                continue
            try:
                resource: Any = api.resources.get(kind=kind, group=group, preferred=True)
            except sdk().dynamic.exceptions.ResourceNotFoundError:
                continue
            listed = resource.get(namespace=namespace, label_selector=self._of_stack).items
            for item in listed:
                if item.metadata.uid not in uids_in_state and not item.metadata.ownerReferences:
                    resource.delete(name=item.metadata.name, namespace=namespace, propagation_policy="Background")
                    removed.append(f"{kind} {item.metadata.name}")
        return removed

    def manual_start(self, key: str) -> str:
        """Return the command that scales an object to one replica. `start` does not: a person scaled the object to 0."""
        kind, _, identifier = key.partition(" ")
        return (
            f"kubectl --context {shlex.quote(self.location.context)} --namespace {self.location.namespace} "
            f"scale {kind.lower()}/{identifier.rpartition('/')[2]} --replicas=1"
        )

    def start(self, keys: Sequence[str]) -> Mapping[str, str]:
        return {}

    def wait_healthy(self, keys: Sequence[str], within: float) -> Mapping[str, str]:
        return {}

    def repair_gateway(self, environment: Environment, read_checkpoint: Callable[[], Checkpoint]) -> bool:
        # No repair is needed: the configuration is in the HTTPRoutes, and the controller checks them.
        return False

    def repeat_switch(self, name: str) -> bool:
        # No repetition is needed: the API server updates an HTTPRoute as a whole, so a switch is atomic.
        return False

    @property
    def _of_stack(self) -> str:
        return f"{LABEL_INSTANCE}={self.location.instance}"


def _labels_of(tier: str, slot: Slot | None) -> dict[str, str]:
    return {LABEL_COMPONENT: tier} | ({LABEL_SLOT: str(slot)} if slot else {})


def inspector(location: Location) -> KubernetesInspector:
    """Return the inspector of a cluster."""
    return KubernetesInspector(location=location)


def check_served(context: str, group: str, path: str, fix: str) -> None:
    """Check before any change that the cluster serves an API group.

    Args:
        context: context of the kubeconfig.
        group: the API group.
        path: config path that requires the API group, for the error.
        fix: advice that the error gives.

    Raises:
        RunError: the cluster does not serve the API group.
    """
    api = sdk().client.ApisApi(connect(context))
    if group not in {served.name for served in api.get_api_versions().groups}:
        raise RunError(f"{path}: the cluster of context {context} does not serve the API group {group}; {fix}")


def _available(deployment: Any) -> bool:
    conditions = {condition.type: condition.status for condition in deployment.status.conditions or ()}
    return conditions.get("Available") == "True" and bool(deployment.status.available_replicas)


def _uid(resource: Mapping[str, Any]) -> str:
    outputs: dict[str, Any] = resource.get("outputs") or {}
    return str(outputs.get("metadata", {}).get("uid"))


def _path(type_: str, namespace: str) -> str:
    """Return the API path that lists objects of a resource type in a namespace, or an empty text.

    The resource type is a type token, such as `kubernetes:apps/v1:Deployment`. The text is empty if the kind is not in `KINDS`.
    """
    _, version, kind = type_.split(":")
    plural = KINDS[kind][1] if kind in KINDS else ""
    group = f"/api/{version.removeprefix('core/')}" if version.startswith("core/") else f"/apis/{version}"
    return f"{group}/namespaces/{namespace}/{plural}" if plural else ""


def _get(api: Any, path: str, selector: str) -> tuple[int, dict[str, Any]]:
    """Send a GET request, and return the HTTP status and the parsed JSON (empty unless the status is 200).

    Request whole Deployments and StatefulSets, but only the metadata of other objects, such as Secrets.
    """
    whole = path.rpartition("/")[2] in ("deployments", "statefulsets")
    accept = (
        "application/json"
        if whole
        else "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
    )
    query = [("labelSelector", selector)] if selector else []
    request = api.param_serialize(
        method="GET",
        resource_path=path,
        query_params=query,
        header_params={"Accept": accept},
        auth_settings=["BearerToken"],
    )
    response = api.call_api(*request)
    response.read()
    return response.status, json.loads(response.data) if response.status == 200 else {}
