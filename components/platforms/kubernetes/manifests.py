"""Manifests of the objects of workloads: Deployment, Service, Secret and others. The module `pod_spec` renders the specs of pods.

All functions are pure.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from pulumi import Input

from ...config import Limits, Quota, SecretReference
from ...model import names
from ...model.names import LABEL_MEMBER
from ...model.workload import Job as ScheduledJob
from ...model.workload import Scale, ScheduledCommand, Secret, Volume, Workload
from ..base import SlotTarget
from .objects import (
    Manifest,
    Scope,
    external_secret_name,
    need_labels,
    object_name,
    scripts_name,
    secret_name,
    selector,
)
from .pod_spec import spread
from .quantities import cpu, size

MIN_READY = 10
"""Seconds that a pod without a probe must run until it counts as available."""
JOB_HISTORY = 5
"""Number of successful and of failed Jobs that a CronJob of the application keeps, for `make status`."""
IN_BACKGROUND = {"pulumi.com/deletionPropagationPolicy": "background"}
SKIP_AWAIT = {"pulumi.com/skipAwait": "true"}
"""Annotation to prevent waiting. The provider would wait 10 s for a Service, and perhaps forever for a PersistentVolumeClaim."""


def deployment(
    scope: Scope, workload: Workload, target: SlotTarget, scale: Scale, spec: Manifest, patience: float
) -> Manifest:
    """Return the Deployment of a service in a slot. If the service has an autoscaler, `scale.replicas` is the minimum.

    The selector includes the release. A selector can't change, so every release gets a new Deployment. An update in place would
    not check the start of the new release: the provider may count pods of the previous release as ready (pulumi-kubernetes 4.25,
    docs/adr/008-deployments.md). Pods of the previous release are deleted in the background, and get their full time to stop.

    Args:
        scope: names and settings of the environment.
        workload: the workload.
        target: slot and release.
        scale: number of replicas.
        spec: spec of the pods.
        patience: time limit in seconds for all replicas to become ready.
    """
    pod_labels = selector(scope, workload, target)
    labels = scope.labels(workload.tier, "tier", target)
    manifest = scope.object("apps/v1", "Deployment", object_name(workload, target), labels, IN_BACKGROUND)
    manifest["spec"] = {
        "progressDeadlineSeconds": round(patience),
        "replicas": scale.replicas,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": pod_labels},
        "template": {
            "metadata": {"labels": labels | need_labels(scope, workload, target)},
            "spec": spec | {"topologySpreadConstraints": spread(pod_labels)},
        },
    }
    manifest["spec"] |= _min_ready(workload)
    return manifest


def stateful_set(scope: Scope, workload: Workload, spec: Manifest, member: str | None = None) -> Manifest:
    """Return the StatefulSet of a data service, or of one member of a replicated service.

    The old pod stops before a new pod starts. The selector includes a hash of the pod template, so a changed template replaces
    the StatefulSet. The data stays, because the PersistentVolumeClaim is an object of its own. With an update in place the
    provider would not wait for the new pod, and Kubernetes would not replace a pod that can't start.
    """
    member_label = {LABEL_MEMBER: member} if member else {}
    labels = scope.labels(workload.tier, "tier") | member_label
    template: Manifest = {"metadata": {"labels": labels, "annotations": secret_versions(workload)}, "spec": spec}
    if workload.reads_store and workload.volumes:
        # The pods of the scheduled commands mount the volumes of this pod and of the store, so both must be on one node.
        template["spec"] = spec | _same_node(scope, workload.reads_store)
    content = content_digest(template)
    template["metadata"]["labels"] = labels | need_labels(scope, workload, None) | {names.LABEL_CONTENT: content}
    manifest = scope.object("apps/v1", "StatefulSet", member or workload.tier, labels)
    manifest["spec"] = {
        "replicas": 1,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector(scope, workload, None) | member_label | {names.LABEL_CONTENT: content}},
        "serviceName": f"{workload.tier}-pods",
        "template": template,
    }
    return manifest


def single_process(scope: Scope, workload: Workload, target: SlotTarget, spec: Manifest) -> Manifest:
    """Return the StatefulSet of a process that must never run twice.

    A StatefulSet starts no second pod while an old one may still run, even if the node of the old one does not answer
    (kubernetes.io/docs/tasks/run-application/force-delete-stateful-set-pod). The selector includes a hash of the pod template, so a new release
    replaces the StatefulSet, and its pod has ended before the new one starts.
    """
    labels = scope.labels(workload.tier, names.ROLE_SINGLE, target)
    pod_labels = labels | need_labels(scope, workload, target)
    content = content_digest({"metadata": {"labels": pod_labels}, "spec": spec})
    manifest = scope.object("apps/v1", "StatefulSet", workload.tier, labels)
    manifest["spec"] = {
        "replicas": 1,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector(scope, workload, target) | {names.LABEL_CONTENT: content}},
        "serviceName": f"{workload.tier}-pods",
        "template": {"metadata": {"labels": pod_labels | {names.LABEL_CONTENT: content}}, "spec": spec},
    }
    manifest["spec"] |= _min_ready(workload)
    return manifest


def _min_ready(workload: Workload) -> Manifest:
    """Return the field with the seconds that a pod must run until it counts as available, for a workload without a probe."""
    return {} if workload.probe else {"minReadySeconds": MIN_READY}


def content_digest(template: Manifest) -> str:
    """Return a hash of a pod template, for a label."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:12]


def secret_versions(workload: Workload) -> dict[str, str]:
    """Return the pod annotation with the versions of the workload's secrets. A changed annotation replaces the pods."""
    return {"tiers/secrets": ".".join(secret.version for secret in workload.all_secrets)}


def service(scope: Scope, workload: Workload, target: SlotTarget | None, *, pods: bool = False) -> Manifest:
    """Return the Service of a workload. If `pods` is True, return the headless Service that a StatefulSet requires."""
    name = object_name(workload, target) + ("-pods" if pods else "")
    # The two Services of a workload have different role labels, so a search by label finds only one of them.
    labels = scope.labels(workload.tier, "pods" if pods else "service", target)
    manifest = scope.object("v1", "Service", name, labels, SKIP_AWAIT)
    manifest["spec"] = {
        "ports": [{"name": "main", "port": workload.port, "protocol": "TCP", "targetPort": "main"}],
        "selector": selector(scope, workload, target),
        "type": "ClusterIP",
    }
    if pods:
        manifest["spec"]["clusterIP"] = "None"
    return manifest


def account(scope: Scope, workload: Workload, target: SlotTarget | None) -> Manifest:
    """Return the ServiceAccount of a workload. Pods of the workload get no token for the API server."""
    name = object_name(workload, target)
    manifest = scope.object("v1", "ServiceAccount", name, scope.labels(workload.tier, "account", target))
    return manifest | {"automountServiceAccountToken": False}


def disruption_budget(scope: Scope, workload: Workload, target: SlotTarget | None) -> Manifest:
    """Return the disruption budget of a workload. One pod at a time may be evicted, so every node can be drained."""
    labels = scope.labels(workload.tier, "budget", target)
    manifest = scope.object("policy/v1", "PodDisruptionBudget", object_name(workload, target), labels)
    manifest["spec"] = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector(scope, workload, target)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return manifest


def autoscaler(scope: Scope, workload: Workload, target: SlotTarget, scale: Scale) -> Manifest:
    """Return the autoscaler of a service, for `scale.replicas` to `scale.most` replicas, depending on processor use.

    To scale by the length of a queue, add an entry to `metrics`.
    """
    name = object_name(workload, target)
    labels = scope.labels(workload.tier, "autoscaler", target)
    manifest = scope.object("autoscaling/v2", "HorizontalPodAutoscaler", name, labels)
    manifest["spec"] = {
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
        "maxReplicas": scale.most,
        "metrics": [
            {
                "type": "Resource",
                # Set an absolute value: a percentage would refer to the request, but the configured percentage refers to the limit.
                "resource": {
                    "name": "cpu",
                    "target": {"type": "AverageValue", "averageValue": cpu(workload.autoscaled or 0.0)},
                },
            }
        ],
        "minReplicas": scale.replicas,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
    }
    return manifest


def claim(scope: Scope, tier: str, volume: Volume) -> Manifest:
    """Return the PersistentVolumeClaim of a data volume. The claim stays when releases are deleted.

    If both slots write to the volume, the access mode allows several nodes to mount the volume.
    """
    labels = scope.labels(volume.name, "data", tier=tier)
    manifest = scope.object("v1", "PersistentVolumeClaim", volume.name, labels, SKIP_AWAIT)
    spec: Manifest = {
        "accessModes": [str(volume.access)],
        "resources": {"requests": {"storage": size(volume.size)}},
    }
    if volume.storage_class:
        spec["storageClassName"] = volume.storage_class
    return manifest | {"spec": spec}


def job(
    scope: Scope, name: str, labels: Mapping[str, str], pods: Mapping[str, str], spec: Manifest, within: float
) -> Manifest:
    """Return a Job that runs once to its end and is never retried."""
    manifest = scope.object("batch/v1", "Job", name, labels)
    # Set a deadline for the pod, because a deadline for the Job would delete the pod and its log.
    bounded = spec | {"activeDeadlineSeconds": round(within), "restartPolicy": "Never"}
    manifest["spec"] = {"backoffLimit": 0, "template": {"metadata": {"labels": dict(pods)}, "spec": bounded}}
    return manifest


def cron_job(scope: Scope, workload: Workload, command: ScheduledCommand, spec: Manifest) -> Manifest:
    """Return a CronJob that runs one Job at a time. A run that is over an hour late is skipped."""
    name = f"{workload.tier}-{command.name}"
    labels = scope.labels(name, "task", tier=workload.tier)
    manifest = scope.object("batch/v1", "CronJob", name, labels)
    bounded = spec | {"activeDeadlineSeconds": round(command.timeout), "restartPolicy": "Never"}
    # Run on the node of the pod that mounts the same volumes, because only one node can mount them. Two requirements can't be combined: the
    # scheduler looks for one pod that meets both. The workload's own pod is on the node of the store, too (`stateful_set`).
    writes = any(not volume.read_only for volume in workload.volumes)
    if owner := workload.reads_store or (workload.tier if writes else ""):
        bounded |= _same_node(scope, owner)
    pods = {"metadata": {"labels": labels | need_labels(scope, workload, None)}, "spec": bounded}
    manifest["spec"] = {
        "schedule": command.schedule,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": labels}, "spec": {"backoffLimit": 0, "template": pods}},
    }
    return manifest


def scheduled_job(scope: Scope, workload: Workload, job: ScheduledJob, target: SlotTarget, spec: Manifest) -> Manifest:
    """Return the CronJob of a scheduled job of the live release.

    The name is the same in every release, so a switch updates the CronJob. The controller names each Job after its due time, so every due
    time has at most one Job, whichever release it belongs to (kubernetes/pkg/controller/cronjob, getJobName).
    """
    labels = scope.labels(f"{names.JOB}-{job.name}", names.ROLE_JOB, target, workload.tier)
    # Don't wait for Jobs that run when the CronJob is deleted.
    manifest = scope.object("batch/v1", "CronJob", f"{names.JOB}-{job.name}", labels, IN_BACKGROUND)
    # Set a deadline for the pod, because a deadline for the Job would delete the pod and its log.
    bounded = spec | {"activeDeadlineSeconds": round(job.timeout), "restartPolicy": "Never"}
    pods = {"metadata": {"labels": labels | need_labels(scope, workload, target)}, "spec": bounded}
    manifest["spec"] = {
        "schedule": job.cron,
        "timeZone": job.schedule.zone,
        "concurrencyPolicy": "Allow" if job.overlaps else "Forbid",
        "startingDeadlineSeconds": job.late,
        "successfulJobsHistoryLimit": JOB_HISTORY,
        "failedJobsHistoryLimit": JOB_HISTORY,
        "jobTemplate": {"metadata": {"labels": labels}, "spec": {"backoffLimit": job.retries, "template": pods}},
    }
    return manifest


def _same_node(scope: Scope, workload: str) -> Manifest:
    """Return the field of a pod spec that requires the node on which the pod of a workload runs."""
    term = {
        "labelSelector": {"matchLabels": {names.LABEL_NAME: workload, names.LABEL_INSTANCE: scope.instance}},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def scripts(scope: Scope, workload: Workload) -> Manifest:
    """Return the ConfigMap with a workload's scripts. Its name is fixed, so changed scripts don't change the workload."""
    labels = scope.labels(workload.tier, "scripts")
    manifest = scope.object("v1", "ConfigMap", scripts_name(workload), labels)
    return manifest | {"data": {script.name: script.text for script in workload.scripts}}


def secret(
    scope: Scope,
    owner: str,
    tier: str,
    secrets: Sequence[Secret],
    values: Mapping[str, Input[str]],
    target: SlotTarget | None,
) -> Manifest:
    """Return an immutable Secret with the values of a workload's secrets."""
    labels = scope.labels(owner, "secrets", target, tier)
    manifest = scope.object("v1", "Secret", secret_name(owner, secrets), labels)
    return manifest | {"immutable": True, "stringData": dict(values), "type": "Opaque"}


def external_secret(
    scope: Scope, owner: str, tier: str, secret: Secret, reference: SecretReference, target: SlotTarget | None
) -> Manifest:
    """Return the ExternalSecret from which the operator External Secrets creates the Secret that the pod mounts."""
    name = external_secret_name(owner, secret)
    manifest = scope.object(
        "external-secrets.io/v1", "ExternalSecret", name, scope.labels(owner, "secrets", target, tier)
    )
    remote = {"key": reference.key} | ({"property": reference.property} if reference.property else {})
    manifest["spec"] = {
        "data": [{"remoteRef": remote, "secretKey": secret.name}],
        # Read the value only once: a changed value needs a new release, which a person requests with a new `version`.
        "refreshPolicy": "CreatedOnce",
        "secretStoreRef": {"kind": "ClusterSecretStore", "name": reference.store},
        "target": {"immutable": True, "name": name},
    }
    return manifest


def namespace(scope: Scope) -> Manifest:
    """Return the Namespace, which enforces the `restricted` Pod Security Standard."""
    labels = scope.labels(scope.app, "namespace")
    labels |= {names.POD_SECURITY.format(mode=mode): "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scope.namespace, "labels": labels}}


def quota(scope: Scope, limits: Quota) -> Manifest:
    """Return the ResourceQuota of the namespace."""
    manifest = scope.object("v1", "ResourceQuota", scope.app, scope.labels(scope.app, "quota"))
    hard = {
        "limits.cpu": cpu(limits.cpu) if limits.cpu else None,
        "limits.memory": size(limits.memory) if limits.memory else None,
        "pods": str(limits.pods) if limits.pods else None,
        "requests.storage": size(limits.storage) if limits.storage else None,
    }
    manifest["spec"] = {"hard": {name: value for name, value in hard.items() if value}}
    return manifest


def limit_range(scope: Scope, limits: Limits) -> Manifest:
    """Return the LimitRange, which sets default limits for containers without limits."""
    manifest = scope.object("v1", "LimitRange", scope.app, scope.labels(scope.app, "limits"))
    default = {"cpu": cpu(limits.cpu), "memory": size(limits.memory)}
    manifest["spec"] = {"limits": [{"type": "Container", "default": default, "defaultRequest": dict(default)}]}
    return manifest
