"""Error messages for objects that an update can't create: state of their pods, logs and events."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pulumi
from pulumi import ErrorHookArgs, ResourceHookBinding
from urllib3.exceptions import HTTPError

from ...options import on_error
from .client import core, sdk
from .objects import Manifest

_LINES = 20
"""Maximum number of log lines of a container in an error."""


def explain(path: str, manifest: Manifest, context: str, *, impact: Callable[[], str]) -> ResourceHookBinding:
    """Return hooks that log an error if an object can't be created or does not become ready.

    The error contains the state of the object's pods, their last log lines, and related events.

    Args:
        path: config path of the object, for the error.
        manifest: the object.
        context: context of the kubeconfig.
        impact: function that describes the effect on users, for the error.
    """
    what = f"{manifest['kind']} {manifest['metadata']['name']}"

    def log_explanation(args: ErrorHookArgs) -> bool:
        cause = args.errors[0].strip() if args.errors else "no reason was given"
        pulumi.log.error(f"{path}: {what}: {reason(cause)}; {impact()}.\n{_evidence(context, manifest)}")
        return False

    return on_error(f"explain-{path}-{what}".replace(" ", "-"), log_explanation)


def reason(cause: str) -> str:
    """Return a one-line explanation of a provider's error, or the first 500 characters of an unknown error."""
    managers = sorted(set(re.findall(r'conflicts? with "([^"]+)"', cause)))
    if managers:
        fields = sorted(set(re.findall(r"(?:^\s*- |: )(\.[^\s;]+)", cause, re.MULTILINE)))
        return (
            f"fields that this program manages were changed by {', '.join(managers)}: {', '.join(fields)}; write the new values "
            "into the configuration, or overwrite them with `PULUMI_K8S_ENABLE_PATCH_FORCE=true pulumi up`"
        )
    if "must support resize" in cause:
        return "the StorageClass does not allow volumes to grow (allowVolumeExpansion); restore the former size, or move the data (docs/data.md)"
    if re.search(r"BackoffLimitExceeded|\bDeadlineExceeded|Job failed", cause):
        return "failed, or did not finish in time"
    if re.search(
        r"timed? ?out|deadline|failed to fully initialize|not become|never became|condition", cause, re.IGNORECASE
    ):
        return "not ready in time"
    return " ".join(cause.split())[:500]


def _evidence(context: str, manifest: Manifest) -> str:
    kubernetes = sdk()
    failures = (kubernetes.client.ApiException, kubernetes.config.ConfigException, HTTPError)
    try:
        api = core(context)
        return "\n".join(evidence(api, manifest)) or "    (the cluster reports nothing more)"
    except failures as error:
        return f"    The state could not be read: {str(error).strip().splitlines()[0]}"


def evidence(api: Any, manifest: Manifest) -> Iterator[str]:
    """Yield lines for an error: state and last log lines of each pod that is not ready, then recent warnings."""
    namespace = manifest["metadata"]["namespace"]
    pods: list[Any] = []
    if manifest["kind"] in _OPERATED:
        yield from _operator_status(api.api_client, manifest)
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
            yield f"    container {status.name}: {state(status.state)}, {status.restart_count} restarts{_last_exit(status)}"
            yield from _log(api, namespace, pod.metadata.name, status)
    events = api.list_namespaced_event(namespace, field_selector="type=Warning").items
    related = [event for event in events if (event.involved_object.name or "").startswith(tuple(names))]
    for event in sorted(related, key=lambda event: str(event.last_timestamp or event.event_time))[-6:]:
        yield f"    event: {event.involved_object.kind} {event.involved_object.name}: {event.reason}: {event.message}"


_OPERATED = {"Cluster": "cnpg.io/cluster", "Pooler": "cnpg.io/poolerName"}
"""Kind of a CloudNativePG object → key of the pod label whose value is the object's name."""


def _operator_status(client: Any, manifest: Manifest) -> Iterator[str]:
    """Yield one line with the phase and the phase reason of a CloudNativePG object, if its status has them."""
    group, _, version = manifest["apiVersion"].partition("/")
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    reference = (group, version, namespace, f"{manifest['kind'].lower()}s", name)
    status = sdk().client.CustomObjectsApi(client).get_namespaced_custom_object(*reference).get("status", {})
    if phase := ": ".join(filter(None, (status.get("phase"), status.get("phaseReason")))):
        yield f"    the operator says: {phase}"


def selector(manifest: Manifest) -> str:
    """Return the label selector of the pods that an object creates."""
    if manifest["kind"] == "Job":
        return f"batch.kubernetes.io/job-name={manifest['metadata']['name']}"
    if label := _OPERATED.get(manifest["kind"]):
        return f"{label}={manifest['metadata']['name']}"
    return label_selector(cast(Mapping[str, str], manifest["spec"]["template"]["metadata"]["labels"]))


def label_selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _claims(manifest: Manifest) -> list[str]:
    volumes = manifest["spec"].get("template", {}).get("spec", {}).get("volumes", ())
    return [volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume]


def state(container_state: Any) -> str:
    """Return the state of a container as text."""
    if waiting := container_state.waiting:
        return f"waiting, {waiting.reason or 'no reason given'}" + (f" ({waiting.message})" if waiting.message else "")
    if terminated := container_state.terminated:
        return f"ended, {terminated.reason or 'no reason given'}, exit code {terminated.exit_code}"
    return "running, not ready" if container_state.running else "not started"


def _last_exit(status: Any) -> str:
    terminated = status.last_state.terminated if status.last_state else None
    return f" (before: {terminated.reason}, exit code {terminated.exit_code})" if terminated else ""


def _log(api: Any, namespace: str, pod: str, status: Any) -> Iterator[str]:
    if not (status.restart_count or status.state.running or status.state.terminated):
        return
    from_previous = bool(status.restart_count) and not status.state.terminated
    options = {"container": status.name, "tail_lines": _LINES}
    try:
        log: str = api.read_namespaced_pod_log(pod, namespace, previous=from_previous, **options)
    except sdk().client.ApiException as error:
        # A log may be deleted before its pod. Then keep the other lines of the error.
        log = f"(its log can't be read: {error.reason})"
    yield from (f"    | {line}" for line in log.strip().splitlines() or ["(it printed nothing)"])
