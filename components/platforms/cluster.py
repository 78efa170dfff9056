"""Queries and commands to a Kubernetes cluster: availability checks, state of pods, logs, and causes of failures."""

import json
import os
import re
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import pulumi
import yaml
from pulumi import ErrorHook, ErrorHookArgs, ResourceHookBinding, RunError
from urllib3.exceptions import HTTPError

from ..checkpoint import LABEL_RELEASE, LABEL_ROLE, LABEL_SLOT
from ..config import Kubernetes
from ..live import Routing
from ..release import Slot
from . import ONCE_WITHIN, Line, cnpg
from .access import HOLD_DATA, KINDS
from .expansion import literals
from .inventory import Inventory, Location, object_key
from .manifests import Manifest

_LINES = 20
"""Lines of a container's log in an error."""
BEGINS = 3
"""Factor on `schedule_within`, the time a pod may take to find its node and image, for a Job that a person runs by hand."""


def check(context: str) -> None:
    """Check before any change that the kubeconfig has the context and that its API server answers.

    A server behind a proxy is not checked: the provider reports the error of its connection.

    Raises:
        RunError: the context is missing or the server does not answer; the message names the setting and the fix.
    """
    files = [Path(name).expanduser() for name in os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep)]
    # Path.is_file raises for a name that is too long.
    parts = [_read(file) for file in files if os.path.isfile(file)]  # noqa: PTH113
    contexts = {name: entry for part in reversed(parts) for name, entry in _named(part, "contexts", "context")}
    clusters = {name: entry for part in reversed(parts) for name, entry in _named(part, "clusters", "cluster")}
    if context not in contexts:
        available_contexts = f"there are: {', '.join(sorted(contexts))}" if contexts else "the file is empty or missing"
        raise RunError(
            f"environment.kubernetes.context: {context} is not in {os.pathsep.join(str(file) for file in files)} ({available_contexts}); "
            "name one of them, or set KUBECONFIG to its file (`make lab-cluster` starts a cluster with context lab)"
        )
    target = clusters.get(str(contexts[context].get("cluster")), {})
    host, port = _server(context, str(target.get("server", "")))
    if "proxy-url" in target or (getproxies().get("https") and not proxy_bypass(host)):
        return
    try:
        socket.create_connection((host, port), timeout=5).close()
    except (OSError, UnicodeError) as error:
        raise RunError(
            f"environment.kubernetes.context: the server of {context} does not answer at {host}:{port} "
            f"({getattr(error, 'strerror', None) or error}); start it (`make lab-cluster` starts the lab's), or name another context"
        ) from None


def check_served(context: str, group: str, path: str, fix: str) -> None:
    """Check before any change that the cluster serves an API group.

    Raises:
        RunError: the cluster does not serve it; the message names the setting and the fix.
    """
    kubernetes: Any = import_module("kubernetes")
    api = kubernetes.client.ApisApi(kubernetes.config.new_client_from_config(context=context))
    if group not in {served.name for served in api.get_api_versions().groups}:
        raise RunError(f"{path}: the cluster of context {context} does not serve the API group {group}; {fix}")


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        wrong = " ".join(str(error).split())
        raise RunError(f"KUBECONFIG: {file} is not YAML ({wrong:.200}); mend it, or name another file") from None
    except OSError as error:
        wrong = error.strerror or str(error)
        raise RunError(f"KUBECONFIG: {file} can't be read ({wrong}); let this user read it") from None
    return cast(Mapping[str, Any], found) if isinstance(found, Mapping) else {}


def _named(part: Mapping[str, Any], key: str, inner: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the entries of a list in a kubeconfig by name. kubectl refuses those that are no mappings."""
    entries: object = part.get(key)
    for entry in cast(list[object], entries) if isinstance(entries, list) else ():
        found = cast(Mapping[str, object], entry if isinstance(entry, Mapping) else {})
        name, value = found.get("name"), found.get(inner)
        if isinstance(name, str) and isinstance(value, Mapping):
            yield name, cast(Mapping[str, Any], value)


def _server(context: str, url: str) -> tuple[str, int]:
    """Return the host and the port of an API server."""
    try:
        server = urlsplit(url)
        return server.hostname or "", server.port or 443
    except ValueError:
        raise RunError(
            f"environment.kubernetes.context: the server of {context} is {url!r:.80}, which is no address; "
            "mend it in the kubeconfig, or name another context"
        ) from None


def explain(path: str, manifest: Manifest, context: str, *, touched: Callable[[], str]) -> ResourceHookBinding:
    """Return hooks that explain why an object was not created or not ready: state of its pods, their logs and events."""
    what = f"{manifest['kind']} {manifest['metadata']['name']}"

    def tell(args: ErrorHookArgs) -> bool:
        cause = args.errors[0].strip() if args.errors else "no reason was given"
        pulumi.log.error(f"{path}: {what}: {reason(cause)}; {touched()}.\n{_evidence(context, manifest)}")
        return False

    return ResourceHookBinding(on_error=[ErrorHook(f"explain-{path}-{what}".replace(" ", "-"), tell)])


def check_available(context: str, namespace: str, labels: Mapping[str, str], impact: Callable[[], str]) -> None:
    """Check that Deployments with these labels exist and that all of them are available.

    Raises:
        RunError: one is not available, or none exists; `impact` describes the effect on users.
    """
    deployments = _deployments(context, namespace, labels)
    unavailable = [deployment.metadata.name for deployment in deployments if not _available(deployment)]
    if unavailable or not deployments:
        raise RunError(
            f"{', '.join(unavailable) or 'no Deployment of the slot'} is not available; {impact()}. Release anew instead"
        )


def available(context: str, namespace: str, labels: Mapping[str, str]) -> bool:
    """Tell whether Deployments with these labels exist and all of them are available."""
    deployments = _deployments(context, namespace, labels)
    return bool(deployments) and all(_available(deployment) for deployment in deployments)


def _deployments(context: str, namespace: str, labels: Mapping[str, str]) -> list[Any]:
    return _apps(context).list_namespaced_deployment(namespace, label_selector=_selector(labels)).items


def expect() -> None:
    """Start importing the Kubernetes client in the background, which takes half a second, while Pulumi's engine is busy."""
    Thread(target=import_module, args=("kubernetes",), daemon=True).start()


def _apps(context: str) -> Any:
    kubernetes: Any = import_module("kubernetes")
    return kubernetes.client.AppsV1Api(kubernetes.config.new_client_from_config(context=context))


def _core(context: str) -> Any:
    kubernetes: Any = import_module("kubernetes")
    return kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(context=context))


def _available(deployment: Any) -> bool:
    conditions = {condition.type: condition.status for condition in deployment.status.conditions or ()}
    return conditions.get("Available") == "True" and bool(deployment.status.available_replicas)


def ready(location: Location) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (slot or "", tier) → how many pods are ready, and how many are expected."""
    api = _apps(location.context)
    in_namespace = (location.namespace,)
    label = {"label_selector": f"{_of_stack(location)},{LABEL_ROLE}=tier"}
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
        for database in _replicated(location.context, label["label_selector"], *in_namespace)
    ]
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for labels, healthy, expected in entries:
        key = (labels.get(LABEL_SLOT, ""), labels["app.kubernetes.io/component"])
        ready_before, expected_before = counts.get(key, (0, 0))
        counts[key] = (ready_before + healthy, expected_before + expected)
    return counts


def routing(settings: Kubernetes, app: str, instance: str) -> Routing:
    """Read from the cluster which slot the HTTPRoute of an instance sends users to."""
    kubernetes: Any = import_module("kubernetes")
    failures = (kubernetes.client.ApiException, kubernetes.config.ConfigException, HTTPError, OSError)
    source = f"HTTPRoute {app} of {instance}"
    try:
        return _routing(kubernetes, settings, app, instance, source)
    except failures as error:
        return Routing(source=source, problem=" ".join(str(error).split())[:300])


def _routing(kubernetes: Any, settings: Kubernetes, app: str, instance: str, source: str) -> Routing:
    client = kubernetes.config.new_client_from_config(context=settings.context)
    namespace, not_found = settings.home(instance), 404
    labels: dict[str, str] = {}
    tiers = {"label_selector": f"app.kubernetes.io/instance={instance},{LABEL_ROLE}=tier,{LABEL_SLOT}"}
    listed = kubernetes.client.AppsV1Api(client).list_namespaced_deployment(namespace, **tiers).items
    running = frozenset(Slot(deployment.metadata.labels[LABEL_SLOT]) for deployment in listed)
    try:
        objects = kubernetes.client.CustomObjectsApi(client)
        listed = objects.get_namespaced_custom_object(*_ROUTES, namespace, "httproutes", app)
        labels |= listed["metadata"].get("labels") or {}
    except kubernetes.client.ApiException as error:
        if error.status != not_found:
            raise
    ours = labels.get("app.kubernetes.io/instance") == instance and labels.get(LABEL_SLOT) in [*Slot]
    if not ours:
        return Routing(source=source, running=running, absent=True)
    number = labels.get("tiers.switch", "")
    return Routing(
        source=source,
        live=Slot(labels[LABEL_SLOT]),
        switches=int(number) if number.isdecimal() else None,
        running=running,
    )


_ROUTES = ("gateway.networking.k8s.io", "v1")


def _replicated(context: str, selector: str, namespace: str) -> list[dict[str, Any]]:
    """Return the database clusters. Returns none if the cluster lacks their kind or the user may not list them."""
    kubernetes: Any = import_module("kubernetes")
    api = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config(context=context))
    collection = (*cnpg.API.split("/"), namespace, "clusters")
    try:
        return api.list_namespaced_custom_object(*collection, label_selector=selector)["items"]
    except kubernetes.client.ApiException as error:
        if error.status in (403, 404):
            return []
        raise


def execute(
    settings: Kubernetes,
    instance: str,
    labels: Mapping[str, str],
    command: Sequence[str],
    given: str = "",
    within: float = 60,
) -> str:
    """Run a command in the first running pod with these labels and return its output.

    This requires the right to `pods/exec`.

    Args:
        given: a line for the command's standard input.
        within: timeout in seconds.

    Raises:
        RunError: no pod runs, the command does not end in time, or it exits with a code other than 0.
    """
    api, namespace = _core(settings.context), settings.home(instance)
    label_selector = _selector({"app.kubernetes.io/instance": instance, LABEL_ROLE: "tier", **labels})
    pods = api.list_namespaced_pod(
        namespace, label_selector=label_selector, field_selector="status.phase=Running"
    ).items
    if not pods:
        raise RunError("no container of it runs")
    stream: Any = import_module("kubernetes.stream")
    name, api_error = pods[0].metadata.name, import_module("kubernetes").client.ApiException
    first = pods[0].spec.containers[0].name
    options = {
        "container": first,
        "stdout": True,
        "stderr": True,
        "stdin": bool(given),
        "tty": False,
        "_preload_content": False,
    }
    try:
        session = stream.stream(api.connect_get_namespaced_pod_exec, name, namespace, command=list(command), **options)
    except api_error as error:
        raise RunError(f"the cluster does not run `{' '.join(command)}` there: {error.reason}") from None
    if given:
        session.write_stdin(f"{given}\n")
    session.run_forever(timeout=within)
    # The exit code is read first: reading the output discards it.
    code = None if session.is_open() else session.returncode
    text = session.read_all().strip()
    if code != 0:
        outcome = f"did not end within {within:g} s" if code is None else f"ended with exit code {code}"
        raise RunError(f"`{' '.join(command)}` {outcome}: {text[-500:] or 'it printed nothing'}")
    return text


def sql(
    settings: Kubernetes, instance: str, labels: Mapping[str, str], *queries: str, user: str = "", database: str = ""
) -> str:
    """Run SQL queries in the first running pod with these labels and return the output of the last one.

    Queries after a failed one are not run.

    Raises:
        RunError: no pod runs, or a query fails.
    """
    command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
    command += ["--username", user] if user else []
    command += ["--dbname", database] if database else []
    command += [word for query in queries for word in ("--command", query)]
    # Warnings precede the output.
    return execute(settings, instance, labels, command).rpartition("\n")[2]


def run_once(settings: Kubernetes, instance: str, name: str, command: Sequence[str]) -> str:
    """Run a command in a Job made from a CronJob and return its output.

    The Job and its log are deleted ten minutes after the Job has ended.

    Raises:
        RunError: the CronJob does not exist, no pod of the Job starts, or the command exits with a code other than 0.
    """
    kubernetes: Any = import_module("kubernetes")
    batch = kubernetes.client.BatchV1Api(kubernetes.config.new_client_from_config(context=settings.context))
    namespace, api_error = settings.home(instance), kubernetes.client.ApiException
    try:
        parent = batch.read_namespaced_cron_job(name, namespace)
    except api_error as error:
        raise RunError(f"there is no CronJob {name} in {namespace} ({error.reason}); run `make up` first") from None
    created = batch.create_namespaced_job(namespace, by_hand(parent, command, f"{name}-{int(time.time())}"))
    job, api = created.metadata.name, _core(settings.context)
    if not _begun(api, namespace, job, BEGINS * settings.schedule_within):
        manifest: Manifest = {
            "kind": "Job",
            "metadata": {"name": job, "namespace": namespace},
            "spec": {"template": {}},
        }
        why = "\n".join(_told(api, manifest)) or "    (the cluster reports nothing more)"
        batch.delete_namespaced_job(job, namespace, propagation_policy="Background")
        raise RunError(f"`{' '.join(command)}` does not begin, as Job {job}, which is removed.\n{why}")
    deadline = time.monotonic() + ONCE_WITHIN
    while not (created.status.succeeded or created.status.failed) and time.monotonic() < deadline:
        time.sleep(1)
        created = batch.read_namespaced_job(job, namespace)
    text = "".join(_printed(api, pod) for pod in _pods_of(api, namespace, job)).strip()
    if not created.status.succeeded:
        raise RunError(f"`{' '.join(command)}` failed, as Job {job}: {text[-500:] or 'it printed nothing'}")
    return text


def _pods_of(api: Any, namespace: str, job: str) -> list[Any]:
    return api.list_namespaced_pod(namespace, label_selector=f"batch.kubernetes.io/job-name={job}").items


def _begun(api: Any, namespace: str, job: str, within: float) -> bool:
    """Wait up to `within` seconds and tell whether a pod of a Job has started.

    A pod may never start: no node has room, its image is missing, or a quota refuses it.
    """
    deadline = time.monotonic() + within
    while not (started := any(pod.status.phase != "Pending" for pod in _pods_of(api, namespace, job))):
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    return started


def _printed(api: Any, pod: Any) -> str:
    """Return the log of a pod, or a note if it has none, as a pod that never started."""
    try:
        return api.read_namespaced_pod_log(pod.metadata.name, pod.metadata.namespace)
    except import_module("kubernetes").client.ApiException as error:
        return f"(the log of {pod.metadata.name} can't be read: {error.reason})"


def by_hand(parent: Any, command: Sequence[str], name: str) -> Any:
    """Return a Job from a CronJob's template with another command. The CronJob owns it, so both are deleted together."""
    kubernetes: Any = import_module("kubernetes")
    spec = parent.spec.job_template.spec
    [container] = spec.template.spec.containers
    container.command = literals(command, {variable.name for variable in container.env or ()})
    spec.ttl_seconds_after_finished = 600
    owner = kubernetes.client.V1OwnerReference(
        api_version="batch/v1", kind="CronJob", name=parent.metadata.name, uid=parent.metadata.uid
    )
    metadata = kubernetes.client.V1ObjectMeta(
        name=name, labels=parent.spec.job_template.metadata.labels, owner_references=[owner]
    )
    return kubernetes.client.V1Job(metadata=metadata, spec=spec)


def objects(settings: Kubernetes, instance: str, slot: Slot) -> dict[str, list[Mapping[str, Any]]]:
    """Return by kind the objects that decide which pods connect to which, and the pods of the tiers.

    Pods of the other slot are left out.
    """
    kubernetes: Any = import_module("kubernetes")
    client = kubernetes.config.new_client_from_config(context=settings.context)
    api = import_module("kubernetes.dynamic").DynamicClient(client)
    listed_objects: dict[str, list[Mapping[str, Any]]] = {}
    of_slot = f"{LABEL_ROLE}=tier,{LABEL_SLOT} notin ({slot.other})"
    for kind, label_selector in (("Service", ""), ("HTTPRoute", ""), ("NetworkPolicy", ""), ("Pod", of_slot)):
        group = KINDS[kind][0] if kind in KINDS else ""
        resource: Any = api.resources.get(kind=kind, group=group, preferred=True)
        listing = resource.get(namespace=settings.home(instance), label_selector=label_selector)
        listed_objects[kind] = listing.to_dict()["items"]
    return listed_objects


def lines(settings: Kubernetes, instance: str) -> Iterator[Line]:
    """Yield all log lines of an instance's pods, including those before a container's last restart."""
    api, namespace = _core(settings.context), settings.home(instance)
    api_error = import_module("kubernetes").client.ApiException
    for pod in api.list_namespaced_pod(namespace, label_selector=f"app.kubernetes.io/instance={instance}").items:
        labels = pod.metadata.labels
        origin = labels["app.kubernetes.io/component"], labels.get(LABEL_SLOT, ""), labels.get(LABEL_RELEASE, "")
        for container in pod.status.container_statuses or ():
            for previous in (True, False) if container.restart_count else (False,):
                try:
                    text: str = api.read_namespaced_pod_log(
                        pod.metadata.name, namespace, container=container.name, timestamps=True, previous=previous
                    )
                except api_error:
                    continue
                for line in text.splitlines():
                    when, _, message = line.partition(" ")
                    yield Line(when, *origin, message)


def remove_strays(location: Location, known: Collection[str]) -> list[str]:
    """Delete the objects of a stack whose uids are not in `known`, except those that may hold data.

    Objects with an owner are skipped: they are deleted with it. Pods and ReplicaSets are never listed.

    Returns:
        Their kinds and names.
    """
    kubernetes: Any = import_module("kubernetes")
    client = kubernetes.config.new_client_from_config(context=location.context)
    api = import_module("kubernetes.dynamic").DynamicClient(client)
    namespace, removed = location.namespace, list[str]()
    for kind, (group, _) in KINDS.items():
        if kind in HOLD_DATA:
            continue
        try:
            resource: Any = api.resources.get(kind=kind, group=group, preferred=True)
        except import_module("kubernetes.dynamic.exceptions").ResourceNotFoundError:
            continue
        listed = resource.get(namespace=namespace, label_selector=_of_stack(location)).items
        for item in listed:
            if item.metadata.uid not in known and not item.metadata.ownerReferences:
                resource.delete(name=item.metadata.name, namespace=namespace, propagation_policy="Background")
                removed.append(f"{kind} {item.metadata.name}")
    return removed


def _of_stack(location: Location) -> str:
    return f"app.kubernetes.io/instance={location.app}-{location.stack}"


def inventory(location: Location, types: Iterable[str]) -> Inventory:
    """List the objects of a stack, with one request for each resource type in its state.

    A kind that the cluster lacks, or that the user may not list, counts as not listed.
    """
    api = _client(location.context)
    keys, kinds, stopped = set[str](), set[str](), dict[str, str]()
    for type_ in sorted(set(types)):
        path, kind = _path(type_, location.namespace), type_.rpartition(":")[2]
        if not path:
            continue
        status, listing = _get(api, path, _of_stack(location))
        if status != 200:
            continue
        kinds.add(kind)
        for item in listing["items"]:
            key = object_key(kind, location.namespace, item["metadata"]["name"])
            keys.add(key)
            if item.get("spec", {}).get("replicas") == 0:
                stopped[key] = "scaled to 0"
    return Inventory(keys=frozenset(keys), kinds=frozenset(kinds), stopped=stopped)


def confirm(location: Location, types: Mapping[str, str]) -> frozenset[str]:
    """Return the keys (each with its resource type) whose objects exist although the listing lacks them.

    A user may have removed their labels. An object counts as existing unless the API server answers 404.
    """
    api = _client(location.context)
    existing = set[str]()
    for key, type_ in types.items():
        path = _path(type_, location.namespace)
        status, _ = _get(api, f"{path}/{key.rpartition('/')[2]}", "")
        if status != 404:
            existing.add(key)
    return frozenset(existing)


def _client(context: str) -> Any:
    return import_module("kubernetes").config.new_client_from_config(context=context)


def _path(type_: str, namespace: str) -> str:
    """Return the path at which the API server lists a resource type such as kubernetes:apps/v1:Deployment.

    Returns an empty text for an unknown kind.
    """
    _, version, kind = type_.split(":")
    plural = KINDS[kind][1] if kind in KINDS else ""
    group = f"/api/{version.removeprefix('core/')}" if version.startswith("core/") else f"/apis/{version}"
    return f"{group}/namespaces/{namespace}/{plural}" if plural else ""


def _get(api: Any, path: str, selector: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON of an API request. Of Secrets and most other kinds only the metadata is requested."""
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


def reason(cause: str) -> str:
    """Return the provider's error as one sentence: the field's other manager, the timeout, or the error's own text."""
    managers = sorted(set(re.findall(r'conflicts? with "([^"]+)"', cause)))
    if managers:
        fields = sorted(set(re.findall(r"(?:^\s*- |: )(\.[^\s;]+)", cause, re.MULTILINE)))
        return (
            f"{', '.join(managers)} has changed it ({', '.join(fields)}), and it is this program's to set; say in the "
            "configuration what it has become, or take it back by PULUMI_K8S_ENABLE_PATCH_FORCE=true pulumi up"
        )
    if "must support resize" in cause:
        return "its StorageClass lets no volume grow (allowVolumeExpansion); set the size back, or move the data (docs/data.md)"
    if re.search(r"BackoffLimitExceeded|\bDeadlineExceeded|Job failed", cause):
        return "it failed, or did not finish in time"
    if re.search(
        r"timed? ?out|deadline|failed to fully initialize|not become|never became|condition", cause, re.IGNORECASE
    ):
        return "it is not ready in time"
    return " ".join(cause.split())[:500]


def _evidence(context: str, manifest: Manifest) -> str:
    # Imported on failure only, because the import takes half a second; untyped, because the client has no types.
    kubernetes: Any = import_module("kubernetes")
    failures = (kubernetes.client.ApiException, kubernetes.config.ConfigException, HTTPError)
    try:
        api = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(context=context))
        return "\n".join(_told(api, manifest)) or "    (the cluster reports nothing more)"
    except failures as error:
        return f"    Its state could not be read: {str(error).strip().splitlines()[0]}"


def _told(api: Any, manifest: Manifest) -> Iterator[str]:
    """Yield the state of each pod that is not ready, with the last log lines of its containers, then recent warnings."""
    namespace = manifest["metadata"]["namespace"]
    pods: list[Any] = []
    if manifest["kind"] in _OPERATED:
        yield from _operated(api.api_client, manifest)
    if "template" in manifest["spec"] or manifest["kind"] in _OPERATED:
        pods = api.list_namespaced_pod(namespace, label_selector=selector(manifest)).items
    names = {manifest["metadata"]["name"], *_claims(manifest)}
    for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp, reverse=True)[:5]:
        names.add(pod.metadata.name)
        init_statuses: list[Any] = pod.status.init_container_statuses or []
        statuses = [status for status in init_statuses if not status.ready] or pod.status.container_statuses or []
        if statuses and all(status.ready for status in statuses):
            continue
        yield f"    pod {pod.metadata.name}: {pod.status.phase}"
        for status in statuses:
            yield f"    container {status.name}: {state(status.state)}, {status.restart_count} restarts{_before(status)}"
            yield from _log(api, namespace, pod.metadata.name, status)
    events = api.list_namespaced_event(namespace, field_selector="type=Warning").items
    related = [event for event in events if (event.involved_object.name or "").startswith(tuple(names))]
    for event in sorted(related, key=lambda event: str(event.last_timestamp or event.event_time))[-6:]:
        yield f"    event: {event.involved_object.kind} {event.involved_object.name}: {event.reason}: {event.message}"


_OPERATED = {"Cluster": "cnpg.io/cluster", "Pooler": "cnpg.io/poolerName"}
"""Kinds whose pods CloudNativePG creates → the label that finds these pods."""


def _operated(client: Any, manifest: Manifest) -> Iterator[str]:
    """Yield the operator's status of one of its objects."""
    kubernetes: Any = import_module("kubernetes")
    group, _, version = manifest["apiVersion"].partition("/")
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    reference = (group, version, namespace, f"{manifest['kind'].lower()}s", name)
    status = kubernetes.client.CustomObjectsApi(client).get_namespaced_custom_object(*reference).get("status", {})
    if phase := ": ".join(filter(None, (status.get("phase"), status.get("phaseReason")))):
        yield f"    the operator says: {phase}"


def selector(manifest: Manifest) -> str:
    """Return the label selector of the pods that an object creates; a template's labels include the release."""
    if manifest["kind"] == "Job":
        return f"batch.kubernetes.io/job-name={manifest['metadata']['name']}"
    if label := _OPERATED.get(manifest["kind"]):
        return f"{label}={manifest['metadata']['name']}"
    return _selector(cast(Mapping[str, str], manifest["spec"]["template"]["metadata"]["labels"]))


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _claims(manifest: Manifest) -> list[str]:
    volumes = manifest["spec"].get("template", {}).get("spec", {}).get("volumes", ())
    return [volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume]


def state(given: Any) -> str:
    """Return a container's state in words."""
    if waiting := given.waiting:
        return f"waiting, {waiting.reason or 'no reason given'}" + (f" ({waiting.message})" if waiting.message else "")
    if terminated := given.terminated:
        return f"ended, {terminated.reason or 'no reason given'}, exit code {terminated.exit_code}"
    return "running, not ready" if given.running else "not started"


def _before(status: Any) -> str:
    terminated = status.last_state.terminated if status.last_state else None
    return f" (before: {terminated.reason}, exit code {terminated.exit_code})" if terminated else ""


def _log(api: Any, namespace: str, pod: str, status: Any) -> Iterator[str]:
    if not (status.restart_count or status.state.running or status.state.terminated):
        return
    from_previous = bool(status.restart_count) and not status.state.terminated
    options = {"container": status.name, "tail_lines": _LINES}
    try:
        log: str = api.read_namespaced_pod_log(pod, namespace, previous=from_previous, **options)
    except import_module("kubernetes").client.ApiException as error:
        # A log may be deleted before its pod. The rest is reported anyway.
        log = f"(its log can't be read: {error.reason})"
    yield from (f"    | {line}" for line in log.strip().splitlines() or ["(it printed nothing)"])
