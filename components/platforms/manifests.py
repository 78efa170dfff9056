"""Manifests of workloads on Kubernetes: pure functions, each rendering objects of one namespace.

Every pod meets the `restricted` Pod Security Standard. It also has a read-only root, no token and a user id that no
node has. Names are few and stable, because DNS names are made of them: `api-blue`, `database`.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pulumi import Input

from .. import names
from ..config import Kubernetes, Limits, Quota, SecretReference
from ..names import LABEL_MEMBER, LABEL_RELEASE, LABEL_ROLE, LABEL_SLOT
from ..workload import SCRATCH, SCRIPTS, SECRETS, Probe, Resources, Scale, Secret, Task, Timed, Volume, Workload
from . import Place
from .expansion import literal, literals

Manifest = dict[str, Any]
_SCRATCH = "scratch"
"""Prefix of scratch volumes. The plain word may be a user's volume; no scratch volume has it as its name."""

DRAIN = 5
"""Seconds a pod still answers after it was removed from its Service, until every proxy has noticed."""
DISK = "256Mi"
"""Disk that a container may use outside of its volumes, for its logs."""
DATA_UID = 10_000
"""Added to the user id of a data tier's image, which might otherwise be a user of the node."""
IN_BACKGROUND = {"pulumi.com/deletionPropagationPolicy": "background"}
SKIP_AWAIT = {"pulumi.com/skipAwait": "true"}
"""Annotation against the provider's await: a Service's takes 10 s and passes without endpoints, a claim's may wait for a pod."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Names and settings that all manifests of an environment share."""

    app: str
    instance: str
    namespace: str
    pull_secrets: tuple[str, ...] = ()

    @classmethod
    def of(cls, app: str, cluster: Kubernetes, instance: str) -> "Scope":
        """Return the scope of the instance `APP-STACK` in its namespace."""
        return cls(app=app, instance=instance, namespace=cluster.home(instance), pull_secrets=cluster.pull_secrets)

    def labels(self, name: str, role: str, place: Place | None = None, tier: str | None = None) -> dict[str, str]:
        """Return the recommended labels and those from which the checkpoint is read."""
        labels = {
            names.LABEL_NAME: name,
            names.LABEL_INSTANCE: self.instance,
            names.LABEL_PART_OF: self.app,
            names.LABEL_MANAGED_BY: "pulumi",
            names.LABEL_COMPONENT: tier or name,
            names.LABEL_APP: self.app,
            LABEL_ROLE: role,
        }
        if place:
            labels |= {names.LABEL_VERSION: place.release.version}
            labels |= {LABEL_SLOT: place.slot, LABEL_RELEASE: str(place.release)}
        return labels

    def object(
        self, api: str, kind: str, name: str, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
    ) -> Manifest:
        metadata: Manifest = {"name": name, "namespace": self.namespace, "labels": dict(labels)}
        if annotations:
            metadata["annotations"] = dict(annotations)
        return {"apiVersion": api, "kind": kind, "metadata": metadata}


def target(workload: Workload, place: Place | None) -> str:
    """Return the name of a workload's objects, which is its DNS name too."""
    return f"{workload.tier}-{place.slot}" if place else workload.tier


def needs(workload: Workload, place: Place | None) -> dict[str, str]:
    """Return the labels that allow a pod to connect to what its workload needs. Policies select by them, not by tier."""
    workloads = [f"api-{place.slot}" if need == "api" and place else need for need in workload.needs]
    return {names.LABEL_NEEDS.format(name=name): "yes" for name in workloads}


def selector(scope: Scope, workload: Workload, place: Place | None) -> dict[str, str]:
    """Return the labels that select a workload's pods of this release, and no pods of tasks."""
    labels = {names.LABEL_NAME: workload.tier, names.LABEL_INSTANCE: scope.instance}
    return labels | ({LABEL_SLOT: str(place.slot), LABEL_RELEASE: str(place.release)} if place else {})


# ---------------------------------------------------------------------- quantities


def size(count: int) -> str:
    """Return bytes as a quantity."""
    return next(
        (f"{count // unit}{name}" for name, unit in (("Gi", 2**30), ("Mi", 2**20)) if not count % unit), f"{count}"
    )


def cpu(processors: float) -> str:
    """Return processors as a quantity."""
    return f"{max(round(processors * 1000), 1)}m"


def resources(given: Resources) -> Manifest:
    """Return requests and limits. Memory and disk are requested in full, processors in part.

    A pod that lacks processors gets slow, whereas one that lacks memory is killed.
    """
    memory_and_disk = {"memory": size(given.memory), "ephemeral-storage": DISK}
    reserved = given.cpu / 4 if given.reserve is None else given.reserve
    return {"requests": {"cpu": cpu(reserved), **memory_and_disk}, "limits": {"cpu": cpu(given.cpu), **memory_and_disk}}


# ---------------------------------------------------------------------- pods


def probes(workload: Workload, names: Collection[str]) -> Manifest:
    """Return three probes that differ, for a container with variables of these names.

    The startup probe runs every second, for as long as the start may take. The readiness probe runs often; its
    failure removes the pod from its Service. The liveness probe runs seldom and tolerates failures, because it kills
    the container. Where its request would equal the readiness probe's, it checks for an open port only.
    """
    if not workload.probe:
        return {}
    alive, ready = workload.probe, workload.ready or workload.probe
    common = {"timeoutSeconds": 5}
    startup = {"periodSeconds": 1, "failureThreshold": max(math.ceil(workload.start_within), 1)}
    rendered = {"startupProbe": {**_handler(alive, names), **common, **startup}}
    if workload.port:
        liveness = _handler(alive, names) if workload.ready else {"tcpSocket": {"port": workload.port}}
        period = 5 if ready.command else 2
        rendered["readinessProbe"] = {
            **_handler(ready, names),
            **common,
            "periodSeconds": period,
            "failureThreshold": 3,
        }
    else:
        liveness = _handler(alive, names)
    rendered["livenessProbe"] = {**liveness, **common, "periodSeconds": 10, "failureThreshold": 6}
    return rendered


def _handler(probe: Probe, names: Collection[str]) -> Manifest:
    if probe.command:
        return {"exec": {"command": literals(probe.command, names)}}
    return {"httpGet": {"path": probe.path, "port": probe.port, "scheme": "HTTP"}}


def user(workload: Workload) -> int:
    """Return the user id of a workload's containers, above those of a node's users."""
    return workload.user if workload.user > DATA_UID else workload.user + DATA_UID


def container(
    name: str,
    image: str,
    user: int,
    given: Resources,
    scratch: Mapping[str, str],
    command: Sequence[str] = (),
    names: Collection[str] = (),
) -> Manifest:
    """Return the fields that all containers have in common.

    Args:
        scratch: writable path → volume of the pod.
        names: names of the container's variables.
    """
    manifest: Manifest = {
        "name": name,
        "image": image,
        # A digest can't change. Asking the registry each time would only make a pod's start depend on it.
        "imagePullPolicy": "IfNotPresent" if "@sha256:" in image else "Always",
        "resources": resources(given),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": user,
            "runAsNonRoot": True,
            "runAsUser": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": volume, "mountPath": path} for path, volume in sorted(scratch.items())],
    }
    if command:
        manifest["command"] = literals(command, names)
    return manifest


def scratch_names(paths: Sequence[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Return writable path → name of the pod's volume.

    A name is made from its path. A hash is added if the plain name is invalid, shared by two paths or in `taken`.
    """
    plain = {path: _SCRATCH + re.sub(r"[/._]", "-", path.lower()).rstrip("-") for path in sorted(paths)}
    used = Counter([*plain.values(), *taken, _SCRATCH])
    return {
        path: name if used[name] == 1 and names.is_dns_label(name) else names.as_dns_label(name, path)
        for path, name in plain.items()
    }


def with_first(spec: Manifest, made: Manifest) -> Manifest:
    """Return a pod with the container `made` as an init container.

    Both share /tmp if it is scratch space in the pod.
    """
    scratch = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
    mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    init_mounts, volumes = list[Manifest](), list(spec["volumes"])
    for path in (mount["mountPath"] for mount in made["volumeMounts"]):
        name = mounts.get(path)
        if name not in scratch:
            name = scratch_names([path], [volume["name"] for volume in volumes])[path]
            volumes.append({"name": name, "emptyDir": _scratch_volume(SCRATCH)})
        init_mounts.append({"name": name, "mountPath": path})
    return spec | {"initContainers": [made | {"volumeMounts": init_mounts}], "volumes": volumes}


def _scratch_volume(room: int) -> Manifest:
    return {"medium": "Memory", "sizeLimit": size(room)}


def pod(
    scope: Scope,
    made: Manifest,
    user: int,
    scratch: Mapping[str, str],
    account: str | None = None,
    room: int = SCRATCH,
) -> Manifest:
    """Return the spec of a pod around its container; `scratch` is path → volume, as in `container`."""
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "containers": [made],
        "enableServiceLinks": False,
        "securityContext": {
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "runAsGroup": user,
            "runAsNonRoot": True,
            "runAsUser": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": scratch[path], "emptyDir": _scratch_volume(room)} for path in sorted(scratch)],
    }
    if account:
        spec["serviceAccountName"] = account
    if scope.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in scope.pull_secrets]
    return spec


def workload_pod(
    scope: Scope,
    workload: Workload,
    place: Place | None,
    variables: Mapping[str, str],
    secret_sources: Sequence[Manifest],
    task: Task | None = None,
) -> Manifest:
    """Return the pod of a workload or of one of its tasks.

    A task's pod differs in its command, and has no ports and probes.
    """
    uid = user(workload)
    scratch = scratch_names(workload.writable, [volume.name for volume in workload.volumes])
    command = task.command if task else workload.command
    rendered = container(workload.tier, workload.image.reference, uid, workload.resources, scratch, command, variables)
    rendered["env"] = [{"name": name, "value": literal(value, variables)} for name, value in variables.items()]
    spec = pod(scope, rendered, uid, scratch, target(workload, place), workload.scratch)
    rendered["volumeMounts"] += [
        {"name": volume.name, "mountPath": volume.path} | ({"readOnly": True} if volume.read_only else {})
        for volume in workload.volumes
    ]
    spec["volumes"] += [
        {"name": volume.name, "persistentVolumeClaim": {"claimName": volume.name}} for volume in workload.volumes
    ]
    if workload.scripts:
        rendered["volumeMounts"].append({"name": names.POD_SCRIPTS, "mountPath": SCRIPTS, "readOnly": True})
        spec["volumes"].append({"name": names.POD_SCRIPTS, "configMap": {"name": scripts_name(workload)}})
    if secret_sources:
        rendered["volumeMounts"].append({"name": names.POD_SECRETS, "mountPath": SECRETS, "readOnly": True})
        spec["volumes"].append(
            {"name": names.POD_SECRETS, "projected": {"defaultMode": 0o440, "sources": list(secret_sources)}}
        )
    if workload.priority:
        spec["priorityClassName"] = workload.priority
    if task:
        return spec
    drain = DRAIN if workload.port and place else 0
    rendered |= probes(workload, variables)
    spec["terminationGracePeriodSeconds"] = round(workload.stop_within) + drain
    if drain:
        rendered["lifecycle"] = {"preStop": {"sleep": {"seconds": drain}}}
    if workload.port:
        rendered["ports"] = [{"name": "main", "containerPort": workload.port, "protocol": "TCP"}]
    return spec


def spread(labels: Mapping[str, str]) -> list[Manifest]:
    """Return constraints that spread pods evenly over zones and hosts; a full zone does not prevent a pod's start."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(labels)},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


# ---------------------------------------------------------------------- objects of a workload


def deployment(
    scope: Scope, workload: Workload, place: Place, scale: Scale, spec: Manifest, patience: float
) -> Manifest:
    """Return the Deployment of a tier of a slot; with an autoscaler `scale.replicas` is the minimum.

    The selector includes the release. As a selector can't change, every release is a Deployment of its own. An update
    in place would not be a gate: the provider may take the previous release's pods for those it waits for (seen with
    pulumi-kubernetes 4.25: docs/adr/008-deployments.md). The previous release's pods are deleted in the background
    and have their full time to stop.
    """
    pod_labels = selector(scope, workload, place)
    labels = scope.labels(workload.tier, "tier", place)
    manifest = scope.object("apps/v1", "Deployment", target(workload, place), labels, IN_BACKGROUND)
    manifest["spec"] = {
        "progressDeadlineSeconds": round(patience),
        "replicas": scale.replicas,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": pod_labels},
        "template": {
            "metadata": {"labels": labels | needs(workload, place)},
            "spec": spec | {"topologySpreadConstraints": spread(pod_labels)},
        },
    }
    if not workload.probe:
        # Without a probe a pod counts as started once it has lived for this long.
        manifest["spec"]["minReadySeconds"] = 10
    return manifest


def stateful_set(scope: Scope, workload: Workload, spec: Manifest, member: str | None = None) -> Manifest:
    """Return the StatefulSet of a data tier or of one member: one pod, which stops before its successor starts.

    The selector includes a hash of the pod's template, so a change replaces the StatefulSet over the same data. With
    an update in place the provider would not wait for the new pod, and a pod that can't start would not make way for
    one that can.
    """
    member_label = {LABEL_MEMBER: member} if member else {}
    labels = scope.labels(workload.tier, "tier") | member_label
    template: Manifest = {"metadata": {"labels": labels, "annotations": secret_versions(workload)}, "spec": spec}
    content = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:12]
    template["metadata"]["labels"] = labels | needs(workload, None) | {names.LABEL_CONTENT: content}
    manifest = scope.object("apps/v1", "StatefulSet", member or workload.tier, labels)
    manifest["spec"] = {
        "replicas": 1,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector(scope, workload, None) | member_label | {names.LABEL_CONTENT: content}},
        "serviceName": f"{workload.tier}-pods",
        "template": template,
    }
    return manifest


def secret_versions(workload: Workload) -> dict[str, str]:
    """Return the annotation of pods that changes with the content of their secrets."""
    return {"tiers/secrets": ".".join(secret.version for secret in workload.secrets)}


def service(scope: Scope, workload: Workload, place: Place | None, *, pods: bool = False) -> Manifest:
    """Return the Service of a workload, or with `pods` the headless one for single pods that a StatefulSet requires."""
    name = target(workload, place) + ("-pods" if pods else "")
    # The roles differ, so that a search for a workload's Service finds one.
    labels = scope.labels(workload.tier, "pods" if pods else "service", place)
    manifest = scope.object("v1", "Service", name, labels, SKIP_AWAIT)
    manifest["spec"] = {
        "ports": [{"name": "main", "port": workload.port, "protocol": "TCP", "targetPort": "main"}],
        "selector": selector(scope, workload, place),
        "type": "ClusterIP",
    }
    if pods:
        manifest["spec"]["clusterIP"] = "None"
    return manifest


def account(scope: Scope, workload: Workload, place: Place | None) -> Manifest:
    """Return a workload's own ServiceAccount, without a token."""
    name = target(workload, place)
    manifest = scope.object("v1", "ServiceAccount", name, scope.labels(workload.tier, "account", place))
    return manifest | {"automountServiceAccountToken": False}


def disruption_budget(scope: Scope, workload: Workload, place: Place | None) -> Manifest:
    """Return a budget that evicts one pod at a time: a node can always be drained, and replicas never leave together."""
    labels = scope.labels(workload.tier, "budget", place)
    manifest = scope.object("policy/v1", "PodDisruptionBudget", target(workload, place), labels)
    manifest["spec"] = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector(scope, workload, place)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return manifest


def autoscaler(scope: Scope, workload: Workload, place: Place, scale: Scale) -> Manifest:
    """Return an autoscaler between `scale.replicas` and `scale.most`, by processors used.

    The length of a queue would be another entry of `metrics`.
    """
    name = target(workload, place)
    labels = scope.labels(workload.tier, "autoscaler", place)
    manifest = scope.object("autoscaling/v2", "HorizontalPodAutoscaler", name, labels)
    manifest["spec"] = {
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
        "maxReplicas": scale.most,
        "metrics": [
            {
                "type": "Resource",
                # In processors, not in percent: Kubernetes computes percent of the request, users think of the limit.
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
    """Return the claim of a volume that outlives every release.

    Volumes that both slots write to must be mountable on several nodes.
    """
    labels = scope.labels(volume.name, "data", tier=tier)
    manifest = scope.object("v1", "PersistentVolumeClaim", volume.name, labels, SKIP_AWAIT)
    shared = tier not in ("database", "cache", "backup")
    spec: Manifest = {
        "accessModes": ["ReadWriteMany" if shared else "ReadWriteOnce"],
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
    # The deadline is the pod's. A deadline of the Job would delete the pod and with it the log.
    bounded = spec | {"activeDeadlineSeconds": round(within), "restartPolicy": "Never"}
    manifest["spec"] = {"backoffLimit": 0, "template": {"metadata": {"labels": dict(pods)}, "spec": bounded}}
    return manifest


def cron_job(scope: Scope, workload: Workload, timed: Timed, spec: Manifest) -> Manifest:
    """Return a CronJob that runs one Job at a time; a run that is an hour late is skipped."""
    name = f"{workload.tier}-{timed.name}"
    labels = scope.labels(name, "task", tier=workload.tier)
    manifest = scope.object("batch/v1", "CronJob", name, labels)
    bounded = spec | {"activeDeadlineSeconds": round(timed.timeout), "restartPolicy": "Never"}
    if any(not volume.read_only for volume in workload.volumes):
        # A volume that only one node can mount is reachable only beside the running pod.
        same_node = {
            "labelSelector": {"matchLabels": selector(scope, workload, None)},
            "topologyKey": "kubernetes.io/hostname",
        }
        bounded["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [same_node]}}
    pods = {"metadata": {"labels": labels | needs(workload, None)}, "spec": bounded}
    manifest["spec"] = {
        "schedule": timed.at,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": labels}, "spec": {"backoffLimit": 0, "template": pods}},
    }
    return manifest


def scripts_name(workload: Workload) -> str:
    return names.SCRIPTS.of(data=workload.tier)


def scripts(scope: Scope, workload: Workload) -> Manifest:
    """Return the ConfigMap of the scripts that initialise a workload's data.

    It keeps its name, so new content changes nothing of the workload.
    """
    labels = scope.labels(workload.tier, "scripts")
    manifest = scope.object("v1", "ConfigMap", scripts_name(workload), labels)
    return manifest | {"data": {script.name: script.text for script in workload.scripts}}


# ---------------------------------------------------------------------- secrets


def secret_name(owner: str, secrets: Sequence[Secret]) -> str:
    """Return a Secret's name that changes with its content, so that running pods keep the values they started with."""
    return owner + names.versions([secret.version for secret in secrets], names.SUBDOMAIN - len(owner))


def secret(
    scope: Scope,
    owner: str,
    tier: str,
    secrets: Sequence[Secret],
    values: Mapping[str, Input[str]],
    place: Place | None,
) -> Manifest:
    """Return an immutable Secret with the values that this workload may read."""
    labels = scope.labels(owner, "secrets", place, tier)
    manifest = scope.object("v1", "Secret", secret_name(owner, secrets), labels)
    return manifest | {"immutable": True, "stringData": dict(values), "type": "Opaque"}


def brought_name(owner: str, given: Secret) -> str:
    """Return the name of the Secret that External Secrets creates for one secret."""
    return secret_name(f"{owner}-{given.name}", [given])


def external_secret(
    scope: Scope, owner: str, tier: str, given: Secret, reference: SecretReference, place: Place | None
) -> Manifest:
    """Return an ExternalSecret (external-secrets.io). Its controller creates the Secret that the pod waits for."""
    name = brought_name(owner, given)
    manifest = scope.object(
        "external-secrets.io/v1", "ExternalSecret", name, scope.labels(owner, "secrets", place, tier)
    )
    remote = {"key": reference.key} | ({"property": reference.property} if reference.property else {})
    manifest["spec"] = {
        "data": [{"remoteRef": remote, "secretKey": given.name}],
        # Read once: a changed value goes out as a release, by a changed `version`.
        "refreshPolicy": "CreatedOnce",
        "secretStoreRef": {"kind": "ClusterSecretStore", "name": reference.store},
        "target": {"immutable": True, "name": name},
    }
    return manifest


# ---------------------------------------------------------------------- the namespace


def namespace(scope: Scope) -> Manifest:
    """Return the Namespace, which refuses pods that are not `restricted`."""
    labels = scope.labels(scope.app, "namespace")
    labels |= {names.POD_SECURITY.format(mode=mode): "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scope.namespace, "labels": labels}}


def quota(scope: Scope, given: Quota) -> Manifest:
    """Return the quota of the whole namespace."""
    manifest = scope.object("v1", "ResourceQuota", scope.app, scope.labels(scope.app, "quota"))
    hard = {
        "limits.cpu": cpu(given.cpu) if given.cpu else None,
        "limits.memory": size(given.memory) if given.memory else None,
        "pods": str(given.pods) if given.pods else None,
        "requests.storage": size(given.storage) if given.storage else None,
    }
    manifest["spec"] = {"hard": {name: value for name, value in hard.items() if value}}
    return manifest


def limit_range(scope: Scope, given: Limits) -> Manifest:
    """Return the default resources of containers that name none."""
    manifest = scope.object("v1", "LimitRange", scope.app, scope.labels(scope.app, "limits"))
    default = {"cpu": cpu(given.cpu), "memory": size(given.memory)}
    manifest["spec"] = {"limits": [{"type": "Container", "default": default, "defaultRequest": dict(default)}]}
    return manifest
