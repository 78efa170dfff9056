"""Asks the cluster itself: whether it is there, and why something failed."""

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
BEGINS = 3
"""How many times what a pod may take to find its node and image (`schedule_within`) one has that somebody runs by hand."""


def check(context: str) -> None:
    """Find out before anything is touched whether the context is there and its API server answers.

    A server behind a proxy is left to the provider, which reports the connection's own error.

    Raises:
        RunError: it is not; the message names the setting and the fix.
    """
    files = [Path(name).expanduser() for name in os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep)]
    # Path.is_file raises for a name that is too long.
    parts = [_read(file) for file in files if os.path.isfile(file)]  # noqa: PTH113
    contexts = {name: each for part in reversed(parts) for name, each in _named(part, "contexts", "context")}
    clusters = {name: each for part in reversed(parts) for name, each in _named(part, "clusters", "cluster")}
    if context not in contexts:
        known = f"there are: {', '.join(sorted(contexts))}" if contexts else "it is empty or not there"
        raise RunError(
            f"environment.kubernetes.context: {context} is not in {os.pathsep.join(str(file) for file in files)} ({known}); "
            "name one of them, or say in KUBECONFIG where it is (`make lab-cluster` starts a cluster with context lab)"
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
    """Find out before anything is touched whether the cluster knows the kinds of an API group.

    Raises:
        RunError: it does not; the message names the setting and the fix.
    """
    kubernetes: Any = import_module("kubernetes")
    api = kubernetes.client.ApisApi(kubernetes.config.new_client_from_config(context=context))
    if group not in {each.name for each in api.get_api_versions().groups}:
        raise RunError(f"{path}: the cluster of context {context} knows no kinds of {group}; {fix}")


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
    """When an object can't be made or does not become ready, say so with the state of its pods, their logs and events."""
    what = f"{manifest['kind']} {manifest['metadata']['name']}"

    def tell(args: ErrorHookArgs) -> bool:
        cause = args.errors[0].strip() if args.errors else "no reason was given"
        pulumi.log.error(f"{path}: {what}: {reason(cause)}; {touched()}.\n{_evidence(context, manifest)}")
        return False

    return ResourceHookBinding(on_error=[ErrorHook(f"explain-{path}-{what}".replace(" ", "-"), tell)])


def check_available(context: str, namespace: str, labels: Mapping[str, str], impact: Callable[[], str]) -> None:
    """Check that the Deployments with these labels are there, and that the cluster calls them available.

    Raises:
        RunError: they are not; `impact` says what that means for users.
    """
    found = _deployments(context, namespace, labels)
    ill = [each.metadata.name for each in found if not _available(each)]
    if ill or not found:
        raise RunError(f"{', '.join(ill) or 'what ran there'} is not available; {impact()}. Release anew instead")


def available(context: str, namespace: str, labels: Mapping[str, str]) -> bool:
    """Return whether there are Deployments with these labels, and all of them are available."""
    found = _deployments(context, namespace, labels)
    return bool(found) and all(_available(each) for each in found)


def _deployments(context: str, namespace: str, labels: Mapping[str, str]) -> list[Any]:
    return _apps(context).list_namespaced_deployment(namespace, label_selector=_selector(labels)).items


def expect() -> None:
    """Begin to import the cluster's client, which takes half a second, while the engine is busy with other things."""
    Thread(target=import_module, args=("kubernetes",), daemon=True).start()


def _apps(context: str) -> Any:
    kubernetes: Any = import_module("kubernetes")
    return kubernetes.client.AppsV1Api(kubernetes.config.new_client_from_config(context=context))


def _core(context: str) -> Any:
    kubernetes: Any = import_module("kubernetes")
    return kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(context=context))


def _available(deployment: Any) -> bool:
    conditions = {each.type: each.status for each in deployment.status.conditions or ()}
    return conditions.get("Available") == "True" and bool(deployment.status.available_replicas)


def ready(location: Location) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (slot or "", tier) → how many of its pods are ready, and how many there are to be."""
    api = _apps(location.context)
    where = (location.namespace,)
    label = {"label_selector": f"{_of_stack(location)},{LABEL_ROLE}=tier"}
    found = [*api.list_namespaced_deployment(*where, **label).items]
    found += api.list_namespaced_stateful_set(*where, **label).items
    said: list[tuple[Mapping[str, str], int, int]] = [
        (each.metadata.labels, each.status.ready_replicas or 0, each.spec.replicas) for each in found
    ]
    said += [
        (each["metadata"]["labels"], each.get("status", {}).get("readyInstances", 0), each["spec"]["instances"])
        for each in _replicated(location.context, label["label_selector"], *where)
    ]
    counted: dict[tuple[str, str], tuple[int, int]] = {}
    for labels, healthy, of in said:
        place = (labels.get(LABEL_SLOT, ""), labels["app.kubernetes.io/component"])
        healthy_too, of_too = counted.get(place, (0, 0))
        counted[place] = (healthy_too + healthy, of_too + of)
    return counted


def routing(settings: Kubernetes, app: str, instance: str) -> Routing:
    """Ask the cluster which slot the HTTPRoute of an instance sends users to."""
    kubernetes: Any = import_module("kubernetes")
    failures = (kubernetes.client.ApiException, kubernetes.config.ConfigException, HTTPError, OSError)
    source = f"HTTPRoute {app} of {instance}"
    try:
        return _routing(kubernetes, settings, app, instance, source)
    except failures as error:
        return Routing(source=source, problem=" ".join(str(error).split())[:300])


def _routing(kubernetes: Any, settings: Kubernetes, app: str, instance: str, source: str) -> Routing:
    client = kubernetes.config.new_client_from_config(context=settings.context)
    where, missing = settings.home(instance), 404
    labels: dict[str, str] = {}
    tiers = {"label_selector": f"app.kubernetes.io/instance={instance},{LABEL_ROLE}=tier,{LABEL_SLOT}"}
    found = kubernetes.client.AppsV1Api(client).list_namespaced_deployment(where, **tiers).items
    running = frozenset(Slot(each.metadata.labels[LABEL_SLOT]) for each in found)
    try:
        objects = kubernetes.client.CustomObjectsApi(client)
        found = objects.get_namespaced_custom_object(*_ROUTES, where, "httproutes", app)
        labels |= found["metadata"].get("labels") or {}
    except kubernetes.client.ApiException as error:
        if error.status != missing:
            raise
    ours = labels.get("app.kubernetes.io/instance") == instance and labels.get(LABEL_SLOT) in [*Slot]
    if not ours:
        return Routing(source=source, running=running, absent=True)
    number = labels.get("tiers.switch", "")
    return Routing(
        source=source,
        live=Slot(labels[LABEL_SLOT]),
        switches=int(number) if number.isdigit() else None,
        running=running,
    )


_ROUTES = ("gateway.networking.k8s.io", "v1")


def _replicated(context: str, selector: str, namespace: str) -> list[dict[str, Any]]:
    """The databases of several instances; where the cluster has no such kind, or it is not ours to see, there are none."""
    kubernetes: Any = import_module("kubernetes")
    api = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config(context=context))
    where = (*cnpg.API.split("/"), namespace, "clusters")
    try:
        return api.list_namespaced_custom_object(*where, label_selector=selector)["items"]
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
    """What a command prints in the first of the pods with these labels; `given` is a line it reads. It takes the right to `pods/exec`.

    Raises:
        RunError: none of them runs, or it ends with another code than 0.
    """
    api, where = _core(settings.context), settings.home(instance)
    wanted = _selector({"app.kubernetes.io/instance": instance, LABEL_ROLE: "tier", **labels})
    found = api.list_namespaced_pod(where, label_selector=wanted, field_selector="status.phase=Running").items
    if not found:
        raise RunError("nothing runs there")
    stream: Any = import_module("kubernetes.stream")
    name, known = found[0].metadata.name, import_module("kubernetes").client.ApiException
    first = found[0].spec.containers[0].name
    ways = {
        "container": first,
        "stdout": True,
        "stderr": True,
        "stdin": bool(given),
        "tty": False,
        "_preload_content": False,
    }
    try:
        asked = stream.stream(api.connect_get_namespaced_pod_exec, name, where, command=list(command), **ways)
    except known as error:
        raise RunError(f"the cluster does not run `{' '.join(command)}` there: {error.reason}") from None
    if given:
        asked.write_stdin(f"{given}\n")
    asked.run_forever(timeout=within)
    # First: reading what it printed takes away what it ended with, too.
    code = None if asked.is_open() else asked.returncode
    text = asked.read_all().strip()
    if code != 0:
        ended = f"did not end within {within:g} s" if code is None else f"ended with exit code {code}"
        raise RunError(f"`{' '.join(command)}` {ended}: {text[-500:] or 'it printed nothing'}")
    return text


def sql(
    settings: Kubernetes, instance: str, labels: Mapping[str, str], *queries: str, user: str = "", database: str = ""
) -> str:
    """What a database answers to the last of these, asked in the first of the pods with these labels; nothing after one that fails.

    Raises:
        RunError: as above, or one of them fails.
    """
    command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
    command += ["--username", user] if user else []
    command += ["--dbname", database] if database else []
    command += [word for query in queries for word in ("--command", query)]
    # Warnings come before what was asked for.
    return execute(settings, instance, labels, command).rpartition("\n")[2]


def run_once(settings: Kubernetes, instance: str, name: str, command: Sequence[str]) -> str:
    """What a command prints in a Job as a CronJob would make it; the Job goes with its log ten minutes after its end.

    Raises:
        RunError: there is no such CronJob, nothing comes up that would run it, or the command ends with another code than 0.
    """
    kubernetes: Any = import_module("kubernetes")
    batch = kubernetes.client.BatchV1Api(kubernetes.config.new_client_from_config(context=settings.context))
    where, known = settings.home(instance), kubernetes.client.ApiException
    try:
        parent = batch.read_namespaced_cron_job(name, where)
    except known as error:
        raise RunError(f"there is no CronJob {name} in {where} ({error.reason}); run `make up` first") from None
    made = batch.create_namespaced_job(where, by_hand(parent, command, f"{name}-{int(time.time())}"))
    job, api = made.metadata.name, _core(settings.context)
    if not _begun(api, where, job, BEGINS * settings.schedule_within):
        found: Manifest = {"kind": "Job", "metadata": {"name": job, "namespace": where}, "spec": {"template": {}}}
        why = "\n".join(_told(api, found)) or "    (the cluster tells nothing more)"
        batch.delete_namespaced_job(job, where, propagation_policy="Background")
        raise RunError(f"`{' '.join(command)}` does not begin, as Job {job}, which is removed.\n{why}")
    deadline = time.monotonic() + ONCE_WITHIN
    while not (made.status.succeeded or made.status.failed) and time.monotonic() < deadline:
        time.sleep(1)
        made = batch.read_namespaced_job(job, where)
    text = "".join(_printed(api, pod) for pod in _pods_of(api, where, job)).strip()
    if not made.status.succeeded:
        raise RunError(f"`{' '.join(command)}` failed, as Job {job}: {text[-500:] or 'it printed nothing'}")
    return text


def _pods_of(api: Any, namespace: str, job: str) -> list[Any]:
    return api.list_namespaced_pod(namespace, label_selector=f"batch.kubernetes.io/job-name={job}").items


def _begun(api: Any, namespace: str, job: str, within: float) -> bool:
    """Whether a pod of it runs, or has: one that finds no node or image, or that a quota leaves no room for, would be waited for in vain."""
    deadline = time.monotonic() + within
    while not (begun := any(pod.status.phase != "Pending" for pod in _pods_of(api, namespace, job))):
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    return begun


def _printed(api: Any, pod: Any) -> str:
    """Its log, which one that never started has not."""
    try:
        return api.read_namespaced_pod_log(pod.metadata.name, pod.metadata.namespace)
    except import_module("kubernetes").client.ApiException as error:
        return f"(the log of {pod.metadata.name} can't be read: {error.reason})"


def by_hand(parent: Any, command: Sequence[str], name: str) -> Any:
    """A CronJob's Job with another command. It belongs to the CronJob, and goes with it."""
    kubernetes: Any = import_module("kubernetes")
    spec = parent.spec.job_template.spec
    [container] = spec.template.spec.containers
    container.command = literals(command, {each.name for each in container.env or ()})
    spec.ttl_seconds_after_finished = 600
    owner = kubernetes.client.V1OwnerReference(
        api_version="batch/v1", kind="CronJob", name=parent.metadata.name, uid=parent.metadata.uid
    )
    metadata = kubernetes.client.V1ObjectMeta(
        name=name, labels=parent.spec.job_template.metadata.labels, owner_references=[owner]
    )
    return kubernetes.client.V1Job(metadata=metadata, spec=spec)


def objects(settings: Kubernetes, instance: str, slot: Slot) -> dict[str, list[Mapping[str, Any]]]:
    """What decides who reaches whom in the namespace, by kind, and the pods of its tiers but for those of the other slot."""
    kubernetes: Any = import_module("kubernetes")
    client = kubernetes.config.new_client_from_config(context=settings.context)
    api = import_module("kubernetes.dynamic").DynamicClient(client)
    found: dict[str, list[Mapping[str, Any]]] = {}
    mine = f"{LABEL_ROLE}=tier,{LABEL_SLOT} notin ({slot.other})"
    for kind, wanted in (("Service", ""), ("HTTPRoute", ""), ("NetworkPolicy", ""), ("Pod", mine)):
        group = KINDS[kind][0] if kind in KINDS else ""
        resource: Any = api.resources.get(kind=kind, group=group, preferred=True)
        listed = resource.get(namespace=settings.home(instance), label_selector=wanted)
        found[kind] = listed.to_dict()["items"]
    return found


def lines(settings: Kubernetes, instance: str) -> Iterator[Line]:
    """All that the containers of an instance's pods have written: of those that are there, and before their last restart."""
    api, where = _core(settings.context), settings.home(instance)
    gone = import_module("kubernetes").client.ApiException
    for pod in api.list_namespaced_pod(where, label_selector=f"app.kubernetes.io/instance={instance}").items:
        of = pod.metadata.labels
        place = of["app.kubernetes.io/component"], of.get(LABEL_SLOT, ""), of.get(LABEL_RELEASE, "")
        for container in pod.status.container_statuses or ():
            for previous in (True, False) if container.restart_count else (False,):
                try:
                    text: str = api.read_namespaced_pod_log(
                        pod.metadata.name, where, container=container.name, timestamps=True, previous=previous
                    )
                except gone:
                    continue
                for line in text.splitlines():
                    when, _, said = line.partition(" ")
                    yield Line(when, *place, said)


def remove_strays(location: Location, known: Collection[str]) -> list[str]:
    """Remove the objects of a stack whose uids are not known, but for those that may hold data.

    What another object owns goes with it, and a Pod or ReplicaSet is nobody's stray.

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
        found = resource.get(namespace=namespace, label_selector=_of_stack(location)).items
        for each in found:
            if each.metadata.uid not in known and not each.metadata.ownerReferences:
                resource.delete(name=each.metadata.name, namespace=namespace, propagation_policy="Background")
                removed.append(f"{kind} {each.metadata.name}")
    return removed


def _of_stack(location: Location) -> str:
    return f"app.kubernetes.io/instance={location.app}-{location.stack}"


def inventory(location: Location, types: Iterable[str]) -> Inventory:
    """List the objects of a stack, one listing for each of the resource types that its state has.

    A kind that the cluster does not have, or that the user may not list, counts as not listed.
    """
    api = _client(location.context)
    keys, kinds, stopped = set[str](), set[str](), dict[str, str]()
    for type_ in sorted(set(types)):
        path, kind = _path(type_, location.namespace), type_.rpartition(":")[2]
        if not path:
            continue
        status, found = _get(api, path, _of_stack(location))
        if status != 200:
            continue
        kinds.add(kind)
        for each in found["items"]:
            key = object_key(kind, location.namespace, each["metadata"]["name"])
            keys.add(key)
            if each.get("spec", {}).get("replicas") == 0:
                stopped[key] = "scaled to 0"
    return Inventory(keys=frozenset(keys), kinds=frozenset(kinds), stopped=stopped)


def confirm(location: Location, types: Mapping[str, str]) -> frozenset[str]:
    """Return those of the keys (each with its resource type) that the cluster has though no listing named them.

    Somebody may have taken their labels off. Whatever is not clearly absent counts as there.
    """
    api = _client(location.context)
    found = set[str]()
    for key, type_ in types.items():
        path = _path(type_, location.namespace)
        status, _ = _get(api, f"{path}/{key.rpartition('/')[2]}", "")
        if status != 404:
            found.add(key)
    return frozenset(found)


def _client(context: str) -> Any:
    return import_module("kubernetes").config.new_client_from_config(context=context)


def _path(type_: str, namespace: str) -> str:
    """Return the path at which the API server lists a resource type, as in kubernetes:apps/v1:Deployment; empty if none is known."""
    _, version, kind = type_.split(":")
    plural = KINDS[kind][1] if kind in KINDS else ""
    group = f"/api/{version.removeprefix('core/')}" if version.startswith("core/") else f"/apis/{version}"
    return f"{group}/namespaces/{namespace}/{plural}" if plural else ""


def _get(api: Any, path: str, selector: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the plain answer of the API server; of Secrets and the like no more than their metadata."""
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
    """The provider's error in a sentence: who else holds a field, what timed out, else its own first line."""
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
    # Imported where a failure needs it, for it takes half a second; and without types, for it has none.
    kubernetes: Any = import_module("kubernetes")
    known = (kubernetes.client.ApiException, kubernetes.config.ConfigException, HTTPError)
    try:
        api = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(context=context))
        return "\n".join(_told(api, manifest)) or "    (the cluster tells nothing more)"
    except known as error:
        return f"    Its state could not be read: {str(error).strip().splitlines()[0]}"


def _told(api: Any, manifest: Manifest) -> Iterator[str]:
    """Of each pod that is not ready: its containers' states and last lines; then what was last reported of them."""
    namespace = manifest["metadata"]["namespace"]
    pods: list[Any] = []
    if manifest["kind"] in _OPERATED:
        yield from _operated(api.api_client, manifest)
    if "template" in manifest["spec"] or manifest["kind"] in _OPERATED:
        pods = api.list_namespaced_pod(namespace, label_selector=selector(manifest)).items
    about = {manifest["metadata"]["name"], *_claims(manifest)}
    for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp, reverse=True)[:5]:
        about.add(pod.metadata.name)
        begun: list[Any] = pod.status.init_container_statuses or []
        statuses = [each for each in begun if not each.ready] or pod.status.container_statuses or []
        if statuses and all(status.ready for status in statuses):
            continue
        yield f"    pod {pod.metadata.name}: {pod.status.phase}"
        for status in statuses:
            yield f"    container {status.name}: {state(status.state)}, {status.restart_count} restarts{_before(status)}"
            yield from _log(api, namespace, pod.metadata.name, status)
    events = api.list_namespaced_event(namespace, field_selector="type=Warning").items
    mine = [event for event in events if (event.involved_object.name or "").startswith(tuple(about))]
    for event in sorted(mine, key=lambda event: str(event.last_timestamp or event.event_time))[-6:]:
        yield f"    event: {event.involved_object.kind} {event.involved_object.name}: {event.reason}: {event.message}"


_OPERATED = {"Cluster": "cnpg.io/cluster", "Pooler": "cnpg.io/poolerName"}
"""What CloudNativePG makes pods of, and the label by which they are found."""


def _operated(client: Any, manifest: Manifest) -> Iterator[str]:
    """What the operator says of an object of its own."""
    kubernetes: Any = import_module("kubernetes")
    group, _, version = manifest["apiVersion"].partition("/")
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    where = (group, version, namespace, f"{manifest['kind'].lower()}s", name)
    status = kubernetes.client.CustomObjectsApi(client).get_namespaced_custom_object(*where).get("status", {})
    if said := ": ".join(filter(None, (status.get("phase"), status.get("phaseReason")))):
        yield f"    the operator says: {said}"


def selector(manifest: Manifest) -> str:
    """The pods an object makes: by its template's labels, the release among them."""
    if manifest["kind"] == "Job":
        return f"batch.kubernetes.io/job-name={manifest['metadata']['name']}"
    if label := _OPERATED.get(manifest["kind"]):
        return f"{label}={manifest['metadata']['name']}"
    return _selector(cast(Mapping[str, str], manifest["spec"]["template"]["metadata"]["labels"]))


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _claims(manifest: Manifest) -> list[str]:
    volumes = manifest["spec"].get("template", {}).get("spec", {}).get("volumes", ())
    return [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]


def state(given: Any) -> str:
    """A container's state in words."""
    if waiting := given.waiting:
        return f"waiting, {waiting.reason or 'no reason given'}" + (f" ({waiting.message})" if waiting.message else "")
    if ended := given.terminated:
        return f"ended, {ended.reason or 'no reason given'}, exit code {ended.exit_code}"
    return "running, not ready" if given.running else "not started"


def _before(status: Any) -> str:
    ended = status.last_state.terminated if status.last_state else None
    return f" (before: {ended.reason}, exit code {ended.exit_code})" if ended else ""


def _log(api: Any, namespace: str, pod: str, status: Any) -> Iterator[str]:
    if not (status.restart_count or status.state.running or status.state.terminated):
        return
    gone = bool(status.restart_count) and not status.state.terminated
    wanted = {"container": status.name, "tail_lines": _LINES}
    try:
        log: str = api.read_namespaced_pod_log(pod, namespace, previous=gone, **wanted)
    except import_module("kubernetes").client.ApiException as error:
        # A log can be gone before the pod is: the rest is told all the same.
        log = f"(its log can't be read: {error.reason})"
    yield from (f"    | {line}" for line in log.strip().splitlines() or ["(it printed nothing)"])
