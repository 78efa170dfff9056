"""Jobs that run one command of a service, in a pod like those of the service's Deployment."""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

from pulumi import RunError

from ...config import Environment
from ...model import services
from ...model.names import (
    LABEL_COMPONENT,
    LABEL_INSTANCE,
    LABEL_NAME,
    LABEL_NEEDS,
    LABEL_RELEASE,
    LABEL_ROLE,
)
from ..base import STOP_WITHIN, Location, OneOff
from . import jobs, pod_spec
from .client import apps, connect, core, sdk
from .errors import label_selector
from .expansion import literals
from .objects import OF_SERVICES, Manifest

LONGEST = 24 * 3600
"""Time limit in seconds of a Job. It ends commands whose client was killed."""
KEEP = 60
"""Seconds from the end of a Job until Kubernetes deletes it, if its client was killed."""
_ENDS_WITHIN = 30
"""Seconds from the end of the output until the cluster must report the exit code."""
_OF_SERVICES = ("lifecycle", "livenessProbe", "ports", "readinessProbe", "startupProbe")
"""Fields of a service's container that the container of a single command does not get."""


def job(owner: Manifest, name: str, command: Sequence[str], toolbox: str, *, terminal: bool) -> Manifest:
    """Return a Job that runs one command with the pod template of a Deployment or StatefulSet, which owns the Job.

    The command replaces the arguments, and the entrypoint stays, as in tasks. The name label is `SERVICE.run`, which is no name of a service, so
    no Service, Deployment or disruption budget selects the pod. The labels for network policies stay. Kubernetes
    deletes the Job together with its owner.

    Args:
        owner: the Deployment or StatefulSet, as the API returns it, with its `kind`.
        name: name of the Job.
        command: the command, with arguments.
        toolbox: image of the toolbox, whose container first waits for the data services.
        terminal: True to give the command a terminal.
    """
    metadata, template = owner["metadata"], owner["spec"]["template"]
    pods: dict[str, str] = template["metadata"]["labels"]
    labels = pods | {LABEL_NAME: f"{pods[LABEL_COMPONENT]}.run", LABEL_ROLE: "run"}
    service: Manifest = {"volumeMounts": []} | template["spec"]["containers"][0]
    variables = {variable["name"]: variable.get("value", "") for variable in service.get("env", ())}
    container = {key: value for key, value in service.items() if key not in _OF_SERVICES}
    container |= {"args": literals(command, variables), "stdin": True, "stdinOnce": True, "tty": terminal}
    spec: Manifest = {"volumes": []} | template["spec"]
    spec.pop("topologySpreadConstraints", None)
    spec |= {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": STOP_WITHIN}
    if addresses := _addresses(labels, variables):
        user = service["securityContext"]["runAsUser"]
        spec = pod_spec.with_init_container(spec, pod_spec.reach_container(toolbox, user, addresses))
    reference = {"apiVersion": "apps/v1", "kind": owner["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {key: value for key, value in labels.items() if not key.startswith(LABEL_NEEDS.format(name=""))},
            "ownerReferences": [reference],
        },
        "spec": {
            "activeDeadlineSeconds": LONGEST,
            "backoffLimit": 0,
            "template": {
                "metadata": {"labels": labels, "annotations": template["metadata"].get("annotations") or {}},
                "spec": spec,
            },
            "ttlSecondsAfterFinished": KEEP,
        },
    }


def _addresses(labels: Mapping[str, str], variables: Mapping[str, str]) -> list[str]:
    """Return the addresses of the data services that a pod needs, from the pod's variables."""
    prefixes = [
        record.prefix for record in services.common_catalogue().data if LABEL_NEEDS.format(name=record.name) in labels
    ]
    return [f"{variables[f'{prefix}_HOST']}:{variables[f'{prefix}_PORT']}" for prefix in prefixes]


def _owner(location: Location, labels: Mapping[str, str]) -> Manifest:
    """Return the Deployment of a service, or the StatefulSet of a process that must never run twice."""
    api, client = apps(location.context), connect(location.context)
    selector = f"{label_selector({LABEL_INSTANCE: location.instance, **labels})},{OF_SERVICES}"
    try:
        for kind, read in (
            ("Deployment", api.list_namespaced_deployment),
            ("StatefulSet", api.list_namespaced_stateful_set),
        ):
            for item in read(location.namespace, label_selector=selector).items:
                return {"kind": kind, **client.sanitize_for_serialization(item)}
    except sdk().client.ApiException as error:
        raise RunError(f"Deployments in {location.namespace} can't be read ({error.reason})") from None
    raise RunError(f"no Deployment in {location.namespace} has the labels {selector}; run `make up` first")


@contextmanager
def created(
    location: Location, environment: Environment, labels: Mapping[str, str], command: Sequence[str], *, terminal: bool
) -> Generator[OneOff]:
    """Start a command in a Job with the pod template of a service, and delete the Job after the `with` block.

    Args:
        location: cluster, namespace and name of the stack.
        environment: the environment.
        labels: labels of the service's Deployment or StatefulSet, in addition to the stack's labels.
        command: the command, with arguments.
        terminal: True to give the command a terminal.

    Raises:
        RunError: the service has no Deployment and no StatefulSet, or the pod does not start.
    """
    client, namespace = connect(location.context), location.namespace
    owner = _owner(location, labels)
    name = f"{owner['metadata']['name']}-run-{token_hex(3)}"
    manifest = job(owner, name, command, environment.toolbox, terminal=terminal)
    batch = sdk().client.BatchV1Api(client)
    batch.create_namespaced_job(namespace, manifest)
    try:
        within = jobs.START_FACTOR * environment.cluster.schedule_within + pod_spec.REACH_WITHIN
        process = _Process(location=location, job=name, command=command)
        pod, container = process.start(within), manifest["spec"]["template"]["spec"]["containers"][0]["name"]
        kubectl = ["kubectl", "--context", location.context, "--namespace", namespace]
        target = [pod, "--container", container]
        release = manifest["metadata"]["labels"].get(LABEL_RELEASE, "")
        one_off = OneOff(
            name=pod,
            release=release,
            # A client that attaches gets only later output. So without a terminal read the output from the log, which is complete.
            attach=[*kubectl, "logs", "--follow", *target],
            feed=[*kubectl, "attach", "--stdin", "--quiet", *target],
            exit_code=process.exit_code,
        )
        if terminal and process.runs():
            attach = [*kubectl, "attach", "--stdin", "--tty", *target]
            one_off = replace(one_off, attach=attach, feed=(), printed=process.log)
        yield one_off
    finally:
        with suppress(sdk().client.ApiException):
            batch.delete_namespaced_job(name, namespace, propagation_policy="Background")


@dataclass(frozen=True, kw_only=True)
class _Process:
    """The command of a Job: its start, its output and its exit code."""

    location: Location
    job: str
    command: Sequence[str]

    def start(self, within: float) -> str:
        """Wait until the pod has started, and return its name.

        Raises:
            RunError: the pod does not start within `within` seconds.
        """
        api = core(self.location.context)
        if not jobs.wait_for_start(api, self.location.namespace, self.job, within):
            raise RunError(f"`{' '.join(self.command)}` did not start, and its Job is removed.\n{self._evidence(api)}")
        return self._pod(api).metadata.name

    def runs(self) -> bool:
        """Return True if the command has not ended."""
        return self._pod(core(self.location.context)).status.phase == "Running"

    def log(self) -> str:
        """Return the output up to now, or a text that says why it can't be read."""
        api = core(self.location.context)
        return jobs.pod_log(api, self._pod(api))

    def exit_code(self, _: int) -> int:
        """Return the exit code of the command, which the client of the pod does not return.

        Raises:
            RunError: the command could not start, was still running, or its pod was deleted.
        """
        api, deadline = core(self.location.context), time.monotonic() + _ENDS_WITHIN
        while True:
            pod = self._pod(api)
            statuses = pod.status.container_statuses or ()
            if ended := statuses[0].state.terminated if statuses else None:
                break
            if pod.status.phase == "Failed":
                raise RunError(f"`{' '.join(self.command)}` did not start.\n{self._evidence(api)}")
            if time.monotonic() > deadline:
                raise RunError(
                    f"{pod.metadata.name}: the client ended before the command, so the command was stopped; run it again"
                )
            time.sleep(0.5)
        if ended.reason in ("ContainerCannotRun", "StartError"):
            raise RunError(f"`{' '.join(self.command)}` could not start: {ended.message}")
        return ended.exit_code

    def _pod(self, api: Any) -> Any:
        pods = jobs.pods_of(api, self.location.namespace, self.job)
        if not pods:
            raise RunError(
                f"the pod of Job {self.job} is gone: it ran for over a day, or it was deleted; run the command again"
            )
        return pods[0]

    def _evidence(self, api: Any) -> str:
        return jobs.evidence_of(api, self.location.namespace, self.job)
