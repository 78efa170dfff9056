"""What a workload is on Kubernetes: pure functions from workloads to manifests, each in one namespace.

Every pod is what the `restricted` Pod Security Standard asks for, and more: a read-only root, no token, a user that no
node has. Names are few and stable, since DNS is made of them: `api-blue`, `database`.
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
"""A volume of this name may be a user's: no path's volume is called so."""

DRAIN = 5
"""Seconds a pod still answers after it was taken out of its Service: until every proxy has heard of it."""
DISK = "256Mi"
"""What a container may write outside of its volumes: its logs."""
DATA_UID = 10_000
"""Added to the user of a data image: below, it might be a user of the node."""
IN_BACKGROUND = {"pulumi.com/deletionPropagationPolicy": "background"}
SKIP_AWAIT = {"pulumi.com/skipAwait": "true"}
"""A Service's own await takes 10 s of quiet and passes without endpoints; a claim's may wait for its first pod."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What all manifests of an environment share."""

    app: str
    instance: str
    namespace: str
    pull_secrets: tuple[str, ...] = ()

    @classmethod
    def of(cls, app: str, cluster: Kubernetes, instance: str) -> "Scope":
        """That of `APP-STACK`, in its namespace."""
        return cls(app=app, instance=instance, namespace=cluster.home(instance), pull_secrets=cluster.pull_secrets)

    def labels(self, name: str, role: str, place: Place | None = None, tier: str | None = None) -> dict[str, str]:
        """The recommended labels, and those the checkpoint is read by."""
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
    """The name a workload has, in DNS too."""
    return f"{workload.tier}-{place.slot}" if place else workload.tier


def needs(workload: Workload, place: Place | None) -> dict[str, str]:
    """The labels that let a pod reach what its workload needs: policies ask for them, not for tiers."""
    found = [f"api-{place.slot}" if need == "api" and place else need for need in workload.needs]
    return {names.LABEL_NEEDS.format(name=name): "yes" for name in found}


def selector(scope: Scope, workload: Workload, place: Place | None) -> dict[str, str]:
    """The labels that find the pods of a workload, of this release and no other, and no pod of a task."""
    found = {names.LABEL_NAME: workload.tier, names.LABEL_INSTANCE: scope.instance}
    return found | ({LABEL_SLOT: str(place.slot), LABEL_RELEASE: str(place.release)} if place else {})


# ---------------------------------------------------------------------- quantities


def size(count: int) -> str:
    """Bytes as a quantity."""
    return next(
        (f"{count // unit}{name}" for name, unit in (("Gi", 2**30), ("Mi", 2**20)) if not count % unit), f"{count}"
    )


def cpu(processors: float) -> str:
    """Processors as a quantity."""
    return f"{max(round(processors * 1000), 1)}m"


def resources(given: Resources) -> Manifest:
    """Memory and disk are reserved whole, processors in part: short of them a pod gets slow, not killed."""
    fixed = {"memory": size(given.memory), "ephemeral-storage": DISK}
    reserved = given.cpu / 4 if given.reserve is None else given.reserve
    return {"requests": {"cpu": cpu(reserved), **fixed}, "limits": {"cpu": cpu(given.cpu), **fixed}}


# ---------------------------------------------------------------------- pods


def probes(workload: Workload, names: Collection[str]) -> Manifest:
    """Three questions that differ, for a container with variables of these names.

    Has it started: often, for as long as it may take. Can it serve: often; a no takes it out of its Service. Does it
    live: seldom and patiently, for a no kills it; where that would be the readiness question, an open port is enough.
    """
    if not workload.probe:
        return {}
    alive, ready = workload.probe, workload.ready or workload.probe
    asked = {"timeoutSeconds": 5}
    start = {"periodSeconds": 1, "failureThreshold": max(math.ceil(workload.start_within), 1)}
    found = {"startupProbe": {**_handler(alive, names), **asked, **start}}
    if workload.port:
        patient = _handler(alive, names) if workload.ready else {"tcpSocket": {"port": workload.port}}
        period = 5 if ready.command else 2
        found["readinessProbe"] = {**_handler(ready, names), **asked, "periodSeconds": period, "failureThreshold": 3}
    else:
        patient = _handler(alive, names)
    found["livenessProbe"] = {**patient, **asked, "periodSeconds": 10, "failureThreshold": 6}
    return found


def _handler(probe: Probe, names: Collection[str]) -> Manifest:
    if probe.command:
        return {"exec": {"command": literals(probe.command, names)}}
    return {"httpGet": {"path": probe.path, "port": probe.port, "scheme": "HTTP"}}


def user(workload: Workload) -> int:
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
    """Return the part that all containers have in common.

    `scratch` are paths to write to, with their pod's volumes; `names` are those of its variables.
    """
    made: Manifest = {
        "name": name,
        "image": image,
        # A digest can't change; asking for it each time would only add the registry to what a pod's start depends on.
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
        made["command"] = literals(command, names)
    return made


def scratch_names(paths: Sequence[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Return path → name of the pod's volume for each path that a container writes to.

    A name is made from its path. A hash is added if the plain name is invalid, two paths share it or it is `taken`.
    """
    plain = {path: _SCRATCH + re.sub(r"[/._]", "-", path.lower()).rstrip("-") for path in sorted(paths)}
    used = Counter([*plain.values(), *taken, _SCRATCH])
    return {
        path: name if used[name] == 1 and names.is_dns_label(name) else names.as_dns_label(name, path)
        for path, name in plain.items()
    }


def with_first(spec: Manifest, made: Manifest) -> Manifest:
    """Return the pod with the container `made` run before its own; both share /tmp if that is scratch space."""
    scratch = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
    mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    first, volumes = list[Manifest](), list(spec["volumes"])
    for path in (mount["mountPath"] for mount in made["volumeMounts"]):
        name = mounts.get(path)
        if name not in scratch:
            name = scratch_names([path], [volume["name"] for volume in volumes])[path]
            volumes.append({"name": name, "emptyDir": _scratch_volume(SCRATCH)})
        first.append({"name": name, "mountPath": path})
    return spec | {"initContainers": [made | {"volumeMounts": first}], "volumes": volumes}


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
    """Return the rest of a pod around its container; `scratch` is path → volume, as in `container`."""
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
    """The pod of a workload, or of one of its tasks: the same but for its command, and without ports and probes."""
    uid = user(workload)
    scratch = scratch_names(workload.writable, [volume.name for volume in workload.volumes])
    command = task.command if task else workload.command
    made = container(workload.tier, workload.image.reference, uid, workload.resources, scratch, command, variables)
    made["env"] = [{"name": name, "value": literal(value, variables)} for name, value in variables.items()]
    spec = pod(scope, made, uid, scratch, target(workload, place), workload.scratch)
    made["volumeMounts"] += [
        {"name": volume.name, "mountPath": volume.path} | ({"readOnly": True} if volume.read_only else {})
        for volume in workload.volumes
    ]
    spec["volumes"] += [
        {"name": volume.name, "persistentVolumeClaim": {"claimName": volume.name}} for volume in workload.volumes
    ]
    if workload.scripts:
        made["volumeMounts"].append({"name": names.POD_SCRIPTS, "mountPath": SCRIPTS, "readOnly": True})
        spec["volumes"].append({"name": names.POD_SCRIPTS, "configMap": {"name": scripts_name(workload)}})
    if secret_sources:
        made["volumeMounts"].append({"name": names.POD_SECRETS, "mountPath": SECRETS, "readOnly": True})
        spec["volumes"].append(
            {"name": names.POD_SECRETS, "projected": {"defaultMode": 0o440, "sources": list(secret_sources)}}
        )
    if workload.priority:
        spec["priorityClassName"] = workload.priority
    if task:
        return spec
    drain = DRAIN if workload.port and place else 0
    made |= probes(workload, variables)
    spec["terminationGracePeriodSeconds"] = round(workload.stop_within) + drain
    if drain:
        made["lifecycle"] = {"preStop": {"sleep": {"seconds": drain}}}
    if workload.port:
        made["ports"] = [{"name": "main", "containerPort": workload.port, "protocol": "TCP"}]
    return spec


def spread(labels: Mapping[str, str]) -> list[Manifest]:
    """Over zones and hosts as evenly as there is room; a full zone keeps no pod from starting."""
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
    """A tier of a slot, begun with `replicas`; where an autoscaler decides, that is the least it may be.

    Its selector holds the release, and a selector can't change: every release is a Deployment of its own. An update in
    place would be no gate, for the provider may take the pods of the release before for those it waits for (seen with
    pulumi-kubernetes 4.25: docs/adr/008-deployments.md). Those of the one before are given their time in the background.
    """
    found = selector(scope, workload, place)
    labels = scope.labels(workload.tier, "tier", place)
    made = scope.object("apps/v1", "Deployment", target(workload, place), labels, IN_BACKGROUND)
    made["spec"] = {
        "progressDeadlineSeconds": round(patience),
        "replicas": scale.replicas,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": found},
        "template": {
            "metadata": {"labels": labels | needs(workload, place)},
            "spec": spec | {"topologySpreadConstraints": spread(found)},
        },
    }
    if not workload.probe:
        # Nothing can be asked: it has started once it has lived for a while.
        made["spec"]["minReadySeconds"] = 10
    return made


def stateful_set(scope: Scope, workload: Workload, spec: Manifest, member: str | None = None) -> Manifest:
    """A tier that holds data, or a member of one: one pod, stopped before its successor starts.

    As with a Deployment, an update in place would not be waited for, and a pod that can't start would not make way for
    one that can: what the pod is made from is part of the selector, so that a change makes it anew, over the same data.
    """
    own = {LABEL_MEMBER: member} if member else {}
    labels = scope.labels(workload.tier, "tier") | own
    template: Manifest = {"metadata": {"labels": labels, "annotations": secret_versions(workload)}, "spec": spec}
    content = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:12]
    template["metadata"]["labels"] = labels | needs(workload, None) | {names.LABEL_CONTENT: content}
    made = scope.object("apps/v1", "StatefulSet", member or workload.tier, labels)
    made["spec"] = {
        "replicas": 1,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector(scope, workload, None) | own | {names.LABEL_CONTENT: content}},
        "serviceName": f"{workload.tier}-pods",
        "template": template,
    }
    return made


def secret_versions(workload: Workload) -> dict[str, str]:
    """The annotation of pods that changes with what is in their secrets."""
    return {"tiers/secrets": ".".join(secret.version for secret in workload.secrets)}


def service(scope: Scope, workload: Workload, place: Place | None, *, pods: bool = False) -> Manifest:
    """The stable address of a workload; with `pods` that of each of its pods, which a StatefulSet wants."""
    name = target(workload, place) + ("-pods" if pods else "")
    # By their roles those who look for the address of a workload find it once.
    labels = scope.labels(workload.tier, "pods" if pods else "service", place)
    made = scope.object("v1", "Service", name, labels, SKIP_AWAIT)
    made["spec"] = {
        "ports": [{"name": "main", "port": workload.port, "protocol": "TCP", "targetPort": "main"}],
        "selector": selector(scope, workload, place),
        "type": "ClusterIP",
    }
    if pods:
        made["spec"]["clusterIP"] = "None"
    return made


def account(scope: Scope, workload: Workload, place: Place | None) -> Manifest:
    """A ServiceAccount of its own, without a token."""
    name = target(workload, place)
    made = scope.object("v1", "ServiceAccount", name, scope.labels(workload.tier, "account", place))
    return made | {"automountServiceAccountToken": False}


def disruption_budget(scope: Scope, workload: Workload, place: Place | None) -> Manifest:
    """One at a time: a node can always be drained, and more than one replica never leave together."""
    labels = scope.labels(workload.tier, "budget", place)
    made = scope.object("policy/v1", "PodDisruptionBudget", target(workload, place), labels)
    made["spec"] = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector(scope, workload, place)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return made


def autoscaler(scope: Scope, workload: Workload, place: Place, scale: Scale) -> Manifest:
    """Between `replicas` and `most`, by processors used. A queue's length would be one more entry of `metrics`."""
    name = target(workload, place)
    labels = scope.labels(workload.tier, "autoscaler", place)
    made = scope.object("autoscaling/v2", "HorizontalPodAutoscaler", name, labels)
    made["spec"] = {
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
        "maxReplicas": scale.most,
        "metrics": [
            {
                "type": "Resource",
                # In processors, not in percent: Kubernetes takes percent of what is reserved, people of what is allowed.
                "resource": {
                    "name": "cpu",
                    "target": {"type": "AverageValue", "averageValue": cpu(workload.autoscaled or 0.0)},
                },
            }
        ],
        "minReplicas": scale.replicas,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
    }
    return made


def claim(scope: Scope, tier: str, volume: Volume) -> Manifest:
    """Data that outlives every release. What both slots write to has to be offered to several nodes."""
    labels = scope.labels(volume.name, "data", tier=tier)
    made = scope.object("v1", "PersistentVolumeClaim", volume.name, labels, SKIP_AWAIT)
    shared = tier not in ("database", "cache", "backup")
    spec: Manifest = {
        "accessModes": ["ReadWriteMany" if shared else "ReadWriteOnce"],
        "resources": {"requests": {"storage": size(volume.size)}},
    }
    if volume.storage_class:
        spec["storageClassName"] = volume.storage_class
    return made | {"spec": spec}


def job(
    scope: Scope, name: str, labels: Mapping[str, str], pods: Mapping[str, str], spec: Manifest, within: float
) -> Manifest:
    """Something that runs to its end, once: it is not tried again behind one's back."""
    made = scope.object("batch/v1", "Job", name, labels)
    # The pod's own deadline: the Job's would delete the pod, and with it what it has to say.
    bounded = spec | {"activeDeadlineSeconds": round(within), "restartPolicy": "Never"}
    made["spec"] = {"backoffLimit": 0, "template": {"metadata": {"labels": dict(pods)}, "spec": bounded}}
    return made


def cron_job(scope: Scope, workload: Workload, timed: Timed, spec: Manifest) -> Manifest:
    """Something that runs at its times, one at a time; one that is missed by an hour waits for the next."""
    name = f"{workload.tier}-{timed.name}"
    labels = scope.labels(name, "task", tier=workload.tier)
    made = scope.object("batch/v1", "CronJob", name, labels)
    bounded = spec | {"activeDeadlineSeconds": round(timed.timeout), "restartPolicy": "Never"}
    if any(not volume.read_only for volume in workload.volumes):
        # A volume that one node has is had by who runs there: beside what keeps running.
        beside = {
            "labelSelector": {"matchLabels": selector(scope, workload, None)},
            "topologyKey": "kubernetes.io/hostname",
        }
        bounded["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [beside]}}
    pods = {"metadata": {"labels": labels | needs(workload, None)}, "spec": bounded}
    made["spec"] = {
        "schedule": timed.at,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": labels}, "spec": {"backoffLimit": 0, "template": pods}},
    }
    return made


def scripts_name(workload: Workload) -> str:
    return names.SCRIPTS.of(data=workload.tier)


def scripts(scope: Scope, workload: Workload) -> Manifest:
    """What the data of a workload begins with. It keeps its name: new content changes nothing of what has its data."""
    labels = scope.labels(workload.tier, "scripts")
    made = scope.object("v1", "ConfigMap", scripts_name(workload), labels)
    return made | {"data": {script.name: script.text for script in workload.scripts}}


# ---------------------------------------------------------------------- secrets


def secret_name(owner: str, secrets: Sequence[Secret]) -> str:
    """A name that changes with the content: what runs keeps what it was given."""
    return owner + names.versions([secret.version for secret in secrets], names.SUBDOMAIN - len(owner))


def secret(
    scope: Scope,
    owner: str,
    tier: str,
    secrets: Sequence[Secret],
    values: Mapping[str, Input[str]],
    place: Place | None,
) -> Manifest:
    """An immutable Secret of the values this workload may read."""
    labels = scope.labels(owner, "secrets", place, tier)
    made = scope.object("v1", "Secret", secret_name(owner, secrets), labels)
    return made | {"immutable": True, "stringData": dict(values), "type": "Opaque"}


def brought_name(owner: str, given: Secret) -> str:
    """The name of the Secret that External Secrets makes of one."""
    return secret_name(f"{owner}-{given.name}", [given])


def external_secret(
    scope: Scope, owner: str, tier: str, given: Secret, reference: SecretReference, place: Place | None
) -> Manifest:
    """An ExternalSecret (external-secrets.io): its controller makes the Secret that the pod waits for."""
    name = brought_name(owner, given)
    made = scope.object("external-secrets.io/v1", "ExternalSecret", name, scope.labels(owner, "secrets", place, tier))
    remote = {"key": reference.key} | ({"property": reference.property} if reference.property else {})
    made["spec"] = {
        "data": [{"remoteRef": remote, "secretKey": given.name}],
        # Never read again: a changed value goes out as a release, by a changed `version`.
        "refreshPolicy": "CreatedOnce",
        "secretStoreRef": {"kind": "ClusterSecretStore", "name": reference.store},
        "target": {"immutable": True, "name": name},
    }
    return made


# ---------------------------------------------------------------------- the namespace


def namespace(scope: Scope) -> Manifest:
    """Pods that are not `restricted` are refused."""
    labels = scope.labels(scope.app, "namespace")
    labels |= {names.POD_SECURITY.format(mode=mode): "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scope.namespace, "labels": labels}}


def quota(scope: Scope, given: Quota) -> Manifest:
    """What all of the namespace may take."""
    made = scope.object("v1", "ResourceQuota", scope.app, scope.labels(scope.app, "quota"))
    hard = {
        "limits.cpu": cpu(given.cpu) if given.cpu else None,
        "limits.memory": size(given.memory) if given.memory else None,
        "pods": str(given.pods) if given.pods else None,
        "requests.storage": size(given.storage) if given.storage else None,
    }
    made["spec"] = {"hard": {name: value for name, value in hard.items() if value}}
    return made


def limit_range(scope: Scope, given: Limits) -> Manifest:
    """What a container may take that says nothing."""
    made = scope.object("v1", "LimitRange", scope.app, scope.labels(scope.app, "limits"))
    default = {"cpu": cpu(given.cpu), "memory": size(given.memory)}
    made["spec"] = {"limits": [{"type": "Container", "default": default, "defaultRequest": dict(default)}]}
    return made
