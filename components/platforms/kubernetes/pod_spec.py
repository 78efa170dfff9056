"""Specs of pods: containers, their security context, probes and volumes. All functions are pure.

Every pod meets the `restricted` Pod Security Standard. In addition, containers have a read-only root file system, get no token for
the API server, and run with a UID that no user of a node has.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ...model import names
from ...model.workload import SCRATCH, SCRIPTS, SECRETS, Probe, Task, Workload
from ..base import SlotTarget
from ..process import Process, probe_headers, toolbox_process
from .expansion import literal, literals
from .objects import Manifest, Scope, object_name, scripts_name
from .quantities import resources, size

_SCRATCH = "scratch"
"""Prefix of the names of scratch volumes. More text always follows, because a configured volume may have the name `scratch`."""
DRAIN = 5
"""Seconds that a stopping pod keeps answering. Within this time every node learns that the Service no longer includes the pod."""
REACH_WITHIN = 60
"""Time limit in seconds for a pod to connect to the services that its command needs, before the command runs."""
DATA_UID = 10_000
"""Offset that is added to UIDs up to this number, because users of a node may have low UIDs."""


def probes(workload: Workload, names: Collection[str], url: str = "") -> Manifest:
    """Return the startup, readiness and liveness probes of a container.

    The startup probe runs every second, for up to `start_within` seconds. The readiness probe runs often, and its failure
    removes the pod from its Service. The liveness probe runs seldom and tolerates failures, because its failure kills the
    container. If both would send the same request, the liveness probe only checks that the port is open.

    A workload without a port gets no readiness probe. A workload without `probe` gets no probes.

    Args:
        workload: the workload.
        names: names of the container's environment variables.
        url: address that users open, for the headers of requests; empty for requests without these headers.
    """
    if not workload.probe:
        return {}
    alive, ready = workload.probe, workload.ready or workload.probe
    common = {"timeoutSeconds": 5}
    startup = {"periodSeconds": 1, "failureThreshold": max(math.ceil(workload.start_within), 1)}
    rendered = {"startupProbe": {**_handler(alive, names, url), **common, **startup}}
    if workload.port:
        liveness = _handler(alive, names, url) if workload.ready else {"tcpSocket": {"port": workload.port}}
        period = 5 if ready.command else 2
        rendered["readinessProbe"] = {
            **_handler(ready, names, url),
            **common,
            "periodSeconds": period,
            "failureThreshold": 3,
        }
    else:
        liveness = _handler(alive, names, url)
    rendered["livenessProbe"] = {**liveness, **common, "periodSeconds": 10, "failureThreshold": 6}
    return rendered


def _handler(probe: Probe, names: Collection[str], url: str) -> Manifest:
    if probe.command:
        return {"exec": {"command": literals(probe.command, names)}}
    request: Manifest = {"path": probe.path, "port": probe.port, "scheme": "HTTP"}
    if url:
        request["httpHeaders"] = [{"name": name, "value": value} for name, value in probe_headers(probe, url).items()]
    return {"httpGet": request}


def user(workload: Workload) -> int:
    """Return the UID of a workload's containers. The UID is higher than the UIDs of a node's users."""
    return workload.user if workload.user > DATA_UID else workload.user + DATA_UID


def container(
    name: str, image: str, process: Process, scratch: Mapping[str, str], names: Collection[str] = ()
) -> Manifest:
    """Return a container of a pod spec, with the fields that all containers have.

    Args:
        name: name of the container.
        image: image of the container.
        process: process of the container.
        scratch: writable path → name of the scratch volume for this path.
        names: names of the container's environment variables.
    """
    manifest: Manifest = {
        "name": name,
        "image": image,
        # Don't pull an image with a digest again. Such an image can't change, and a pull makes the pod's start depend on the registry.
        "imagePullPolicy": "IfNotPresent" if "@sha256:" in image else "Always",
        "resources": resources(process.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": process.user,
            "runAsNonRoot": True,
            "runAsUser": process.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": volume, "mountPath": path} for path, volume in sorted(scratch.items())],
    }
    if process.command:
        manifest["command"] = literals(process.command, names)
    return manifest


def scratch_names(paths: Sequence[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Return the names of scratch volumes: writable path → name.

    The name comes from the path. It gets a hash if it is invalid, the same for two paths, or in `taken`.
    """
    plain = {path: _SCRATCH + re.sub(r"[/._]", "-", path.lower()).rstrip("-") for path in sorted(paths)}
    used = Counter([*plain.values(), *taken, _SCRATCH])
    return {
        path: name if used[name] == 1 and names.is_dns_label(name) else names.as_dns_label(name, path)
        for path, name in plain.items()
    }


def with_init_container(spec: Manifest, init_container: Manifest) -> Manifest:
    """Return a pod's spec with an init container, which shares the scratch volumes of the first container."""
    scratch = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
    mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    init_mounts, volumes = list[Manifest](), list(spec["volumes"])
    for path in (mount["mountPath"] for mount in init_container["volumeMounts"]):
        name = mounts.get(path)
        if name not in scratch:
            name = scratch_names([path], [volume["name"] for volume in volumes])[path]
            volumes.append({"name": name, "emptyDir": _scratch_volume(SCRATCH)})
        init_mounts.append({"name": name, "mountPath": path})
    return spec | {"initContainers": [init_container | {"volumeMounts": init_mounts}], "volumes": volumes}


def tool_container(name: str, image: str, process: Process) -> Manifest:
    """Return a container that runs a program of the toolbox."""
    return container(name, image, process, scratch_names(process.writable))


def reach_container(toolbox: str, user: int, addresses: Sequence[str]) -> Manifest:
    """Return an init container that waits until each address accepts a connection.

    Nodes need some time until they route to a ready pod and apply network policies to a new pod. A command would fail in this time,
    and it is not retried.

    Args:
        toolbox: image of the toolbox.
        user: UID of the container.
        addresses: addresses as `HOST:PORT`.
    """
    return tool_container("reach", toolbox, toolbox_process(user, "reach", str(REACH_WITHIN), *addresses))


def _scratch_volume(room: int) -> Manifest:
    return {"medium": "Memory", "sizeLimit": size(room)}


def pod(
    scope: Scope,
    rendered: Manifest,
    process: Process,
    scratch: Mapping[str, str],
    account: str | None = None,
) -> Manifest:
    """Return the spec of a pod with one container.

    Args:
        scope: names and settings of the environment.
        rendered: the container.
        process: process of the container.
        scratch: writable path → name of the scratch volume for this path.
        account: name of the ServiceAccount; None for the namespace's default.
    """
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "containers": [rendered],
        "enableServiceLinks": False,
        "securityContext": {
            "fsGroup": process.user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "runAsGroup": process.user,
            "runAsNonRoot": True,
            "runAsUser": process.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": scratch[path], "emptyDir": _scratch_volume(process.scratch)} for path in sorted(scratch)],
    }
    if account:
        spec["serviceAccountName"] = account
    if scope.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in scope.pull_secrets]
    return spec


@dataclass(frozen=True, kw_only=True)
class PodEnvironment:
    """Values that the container of a workload's pod gets from outside: environment variables, secret files, address of the environment."""

    variables: Mapping[str, str]
    """Environment variables with plain values."""
    secret_keys: Mapping[str, Mapping[str, str]]
    """Environment variables with secrets: name → name and key of the Kubernetes Secret."""
    secret_sources: Sequence[Manifest]
    """Sources of the projected volume with the secret files."""
    url: str
    """Address that users open, for the headers of health checks."""

    @property
    def names(self) -> frozenset[str]:
        """Names of all environment variables."""
        return frozenset((*self.variables, *self.secret_keys))

    @property
    def entries(self) -> list[Manifest]:
        """Environment variables as entries of a container's `env`."""
        plain = [{"name": name, "value": literal(value, self.names)} for name, value in self.variables.items()]
        secret = sorted(self.secret_keys.items())
        return [*plain, *({"name": name, "valueFrom": {"secretKeyRef": dict(key)}} for name, key in secret)]


def workload_pod(
    scope: Scope,
    workload: Workload,
    target: SlotTarget | None,
    environment: PodEnvironment,
    task: Task | None = None,
) -> Manifest:
    """Return the pod spec of a workload or of one of its tasks.

    The pod of a task runs the task's command, and has no ports or probes.
    """
    process = replace(Process.from_workload(workload), user=user(workload))
    process = replace(process, command=task.command) if task else process
    scratch = scratch_names(process.writable, [volume.name for volume in workload.volumes])
    rendered = container(workload.tier, workload.image.reference, process, scratch, environment.names)
    if target or workload.belongs_to:
        rendered |= _arguments(rendered.pop("command", []), workload, environment.names)
    rendered["env"] = environment.entries
    spec = pod(scope, rendered, process, scratch, object_name(workload, target))
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
    if environment.secret_sources:
        rendered["volumeMounts"].append({"name": names.POD_SECRETS, "mountPath": SECRETS, "readOnly": True})
        spec["volumes"].append(
            {
                "name": names.POD_SECRETS,
                "projected": {"defaultMode": 0o440, "sources": list(environment.secret_sources)},
            }
        )
    if workload.priority:
        spec["priorityClassName"] = workload.priority
    if task:
        return spec
    drain = DRAIN if workload.port and target else 0
    rendered |= probes(workload, environment.names, environment.url if target else "")
    spec["terminationGracePeriodSeconds"] = round(workload.stop_within) + drain
    if drain:
        rendered["lifecycle"] = {"preStop": {"sleep": {"seconds": drain}}}
    if workload.port:
        rendered["ports"] = [{"name": "main", "containerPort": workload.port, "protocol": "TCP"}]
    return spec


def _arguments(command: Sequence[str], workload: Workload, names: Collection[str]) -> Manifest:
    """Return the fields of a container that replace the image's command, and the image's entrypoint if the workload has one."""
    entrypoint = {"command": literals(workload.entrypoint, names)} if workload.entrypoint else {}
    return entrypoint | ({"args": list(command)} if command else {})


def spread(labels: Mapping[str, str]) -> list[Manifest]:
    """Return constraints that spread pods evenly over zones and hosts. If an even spread is impossible, the pods start anyway."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(labels)},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
