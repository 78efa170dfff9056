"""Jobs of CronJobs: runs at due times, and runs that a person starts."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pulumi import RunError

from ...model.names import JOB, LABEL_NAME, LABEL_RELEASE
from ..base import ONCE_WITHIN, JobRun, VolumeRestore
from .client import connect, core, sdk
from .errors import evidence
from .expansion import literals
from .objects import Manifest

DUE_TIME = "batch.kubernetes.io/cronjob-scheduled-timestamp"
"""Annotation of a Job with its due time. The CronJob controller sets it."""
START_FACTOR = 3
"""Factor for Jobs that a person starts: the pod must start within `START_FACTOR` times `schedule_within`."""


def run_once(
    context: str,
    namespace: str,
    name: str,
    command: Sequence[str],
    schedule_within: float,
    restore: VolumeRestore | None = None,
) -> str:
    """Run a command in a Job with the pod template of a CronJob, and return the command's output.

    Kubernetes deletes the Job and its log ten minutes after the Job's end.

    Args:
        context: context of the kubeconfig.
        namespace: namespace of the CronJob.
        name: name of the CronJob.
        command: the command, with arguments.
        schedule_within: usual time limit in seconds for a pod to start (`environment.kubernetes.schedule_within`).
        restore: the stopped store to whose volumes the command may write; None for no such store.

    Raises:
        RunError: the CronJob does not exist, no pod of the Job starts, or the command exits with a code other than 0.
    """
    batch = sdk().client.BatchV1Api(connect(context))
    try:
        parent = batch.read_namespaced_cron_job(name, namespace)
    except sdk().client.ApiException as error:
        raise RunError(f"there is no CronJob {name} in {namespace} ({error.reason}); run `make up` first") from None
    created = batch.create_namespaced_job(namespace, manual_job(parent, command, f"{name}-{int(time.time())}", restore))
    job, api = created.metadata.name, core(context)
    if not wait_for_start(api, namespace, job, START_FACTOR * schedule_within):
        why = evidence_of(api, namespace, job)
        batch.delete_namespaced_job(job, namespace, propagation_policy="Background")
        raise RunError(f"`{' '.join(command)}` did not start: Job {job} had no running pod, and was removed.\n{why}")
    deadline = time.monotonic() + ONCE_WITHIN
    while not (created.status.succeeded or created.status.failed) and time.monotonic() < deadline:
        time.sleep(1)
        created = batch.read_namespaced_job(job, namespace)
    text = "".join(pod_log(api, pod) for pod in pods_of(api, namespace, job)).strip()
    if not created.status.succeeded:
        raise RunError(f"`{' '.join(command)}` failed in Job {job}: {text[-500:] or 'it printed nothing'}")
    return text


def scheduled_runs(context: str, namespace: str, selector: str) -> list[JobRun]:
    """Return the runs of scheduled jobs whose Jobs still exist, oldest first.

    Args:
        context: context of the kubeconfig.
        namespace: namespace of the Jobs.
        selector: label selector of the Jobs and of their pods.
    """
    listed = sdk().client.BatchV1Api(connect(context)).list_namespaced_job(namespace, label_selector=selector).items
    pods = core(context).list_namespaced_pod(namespace, label_selector=selector).items
    codes = _exit_codes(pods)
    runs = [_run(job, codes) for job in listed if DUE_TIME in (job.metadata.annotations or {})]
    return sorted(runs, key=lambda run: run.due)


def _run(job: Any, codes: Mapping[str, int]) -> JobRun:
    ends = [condition.last_transition_time for condition in job.status.conditions or () if condition.status == "True"]
    labels, start = job.metadata.labels, job.status.start_time
    return JobRun(
        job=labels[LABEL_NAME].removeprefix(f"{JOB}-"),
        due=datetime.fromisoformat(job.metadata.annotations[DUE_TIME]),
        release=labels[LABEL_RELEASE],
        code=(0 if job.status.succeeded else codes.get(job.metadata.name, 1)) if ends else None,
        seconds=(max(ends) - start).total_seconds() if ends and start else None,
    )


def _exit_codes(pods: Sequence[Any]) -> dict[str, int]:
    """Return the exit code of the last pod of each Job, by the name of the Job."""
    codes: dict[str, int] = {}
    for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp):
        for status in pod.status.container_statuses or ():
            if status.state.terminated:
                codes[pod.metadata.labels["batch.kubernetes.io/job-name"]] = status.state.terminated.exit_code
    return codes


def evidence_of(api: Any, namespace: str, job: str) -> str:
    """Return lines for an error: state and last log lines of a Job's pods, and recent warnings."""
    manifest: Manifest = {"kind": "Job", "metadata": {"name": job, "namespace": namespace}, "spec": {"template": {}}}
    return "\n".join(evidence(api, manifest)) or "    (the cluster reports nothing more)"


def pods_of(api: Any, namespace: str, job: str) -> list[Any]:
    """Return the pods of a Job."""
    return api.list_namespaced_pod(namespace, label_selector=f"batch.kubernetes.io/job-name={job}").items


def wait_for_start(api: Any, namespace: str, job: str, within: float) -> bool:
    """Wait until a pod of a Job has started. Return False if no pod starts within `within` seconds.

    Possible reasons: no node has room, the image is missing, or a quota refuses the pod.
    """
    deadline = time.monotonic() + within
    while not (started := any(pod.status.phase != "Pending" for pod in pods_of(api, namespace, job))):
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    return started


def pod_log(api: Any, pod: Any) -> str:
    """Return the log of a pod, or a text that says why the log can't be read."""
    try:
        return api.read_namespaced_pod_log(pod.metadata.name, pod.metadata.namespace)
    except sdk().client.ApiException as error:
        return f"(the log of {pod.metadata.name} can't be read: {error.reason})"


def manual_job(parent: Any, command: Sequence[str], name: str, restore: VolumeRestore | None = None) -> Any:
    """Return a Job that runs `command` with the pod template of the CronJob `parent`.

    The CronJob owns the Job, so Kubernetes deletes both together. A Job of a restore may write to the volumes of the store, and does not wait
    for the node of the store, which has no pod during the restore.
    """
    kubernetes = sdk()
    spec = parent.spec.job_template.spec
    [container] = spec.template.spec.containers
    container.command = literals(command, {variable.name for variable in container.env or ()})
    if restore:
        _open_volumes(spec.template.spec, restore)
    spec.ttl_seconds_after_finished = 600
    owner = kubernetes.client.V1OwnerReference(
        api_version="batch/v1", kind="CronJob", name=parent.metadata.name, uid=parent.metadata.uid
    )
    metadata = kubernetes.client.V1ObjectMeta(
        name=name, labels=parent.spec.job_template.metadata.labels, owner_references=[owner]
    )
    return kubernetes.client.V1Job(metadata=metadata, spec=spec)


def _open_volumes(pod: Any, restore: VolumeRestore) -> None:
    """Make the mounts of a store's volumes writable. Require the node of the backup workload instead of the store's node.

    Without a volume for the backups the node is free, because no other pod mounts a volume of this pod.
    """
    mounts: list[Any] = pod.containers[0].volume_mounts
    claims = {volume.name for volume in pod.volumes if volume.persistent_volume_claim}
    of_store = [mount for mount in mounts if mount.mount_path.startswith(f"{restore.folder}/")]
    for mount in of_store:
        mount.read_only = None
    if claims - {mount.name for mount in of_store}:
        [term] = pod.affinity.pod_affinity.required_during_scheduling_ignored_during_execution
        term.label_selector.match_labels[LABEL_NAME] = restore.workload
    else:
        pod.affinity = None
