"""Rules for environments: pure functions over the resources that the engine is about to create. No Pulumi.

A rule gets resources in the engine's form: the type, and the inputs after the provider has checked them. On Docker
these are in camelCase (kreuzwerker/terraform-provider-docker, bridged by pulumi-docker), on Kubernetes they are
manifests. It yields each problem with its fix, and nothing else. `Rule.problems` leaves out kept resources.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

from .model import Problem, Properties, Resource, Rule, Settings, at, of_each

# ---------------------------------------------------------------------- what things hold

DATA = ("database", "cache")
TIERS = ("web", "api", "worker", *DATA)
BACKUPS = "/var/lib/backup"
"""Mount path of a folder of the engine's host that was chosen as the target of backups."""
_POD_IN_TEMPLATE = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job")
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def _pod(resource: Resource) -> Properties | None:
    """Return the spec of the pods that a Kubernetes object creates."""
    if resource.on("kubernetes", "Pod"):
        return at(resource.props, "spec")
    if resource.on("kubernetes", "CronJob"):
        return at(resource.props, "spec", "jobTemplate", "spec", "template", "spec")
    return at(resource.props, "spec", "template", "spec") if resource.on("kubernetes", *_POD_IN_TEMPLATE) else None


def _pod_containers(resource: Resource) -> list[Properties]:
    pod = _pod(resource) or {}
    return [container for group in _CONTAINERS for container in pod.get(group) or ()]


def _tier(resource: Resource) -> str:
    """Return the tier's name in the configuration, for the fix."""
    labels = resource.labels
    name = labels.get("tiers.tier") or labels.get("app.kubernetes.io/component")
    return name if name in TIERS else "<tier>"


def _is_container(resource: Resource) -> bool:
    return resource.on("docker", "Container")


def _images(resource: Resource) -> list[str]:
    """Return the images that a resource pulls; neither images built here nor an engine's ids."""
    if resource.on("docker", "RemoteImage"):
        return [] if resource.props.get("build") else [resource.props["name"]]
    if _is_container(resource):
        image = resource.props.get("image") or ""
        return [] if image.startswith("sha256:") else [image]
    # Without an image in the object CloudNativePG uses its own release's.
    operated = [container["image"] for container in _operated_containers(resource) if container.get("image")]
    return operated + [container["image"] for container in _pod_containers(resource)]


def _operated_containers(resource: Resource) -> list[Properties]:
    """Return the settings of CloudNativePG's objects for their containers; the operator sets the rest."""
    spec = at(resource.props, "spec")
    if resource.on("kubernetes", "Cluster"):
        return [{"name": "postgres", "image": spec.get("imageName"), "resources": spec.get("resources")}]
    if resource.on("kubernetes", "Pooler"):
        return list(at(spec, "template", "spec").get("containers") or ())
    return []


# ---------------------------------------------------------------------- images


def _latest(resource: Resource, _: Settings) -> Iterator[str]:
    for image in _images(resource):
        name, _at, digest = image.partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if not digest and tag in ("", "latest"):
            yield f"{image} changes with every new version; name the version you tested, or the digest (`make images`)"


def _written_out(image: str) -> str:
    """Return an image's full name: without a host it is on Docker Hub, without a folder it is an official one there."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def _of(trusted: str, image: str) -> bool:
    """Tell whether an image is below a registry or folder, or is exactly that repository."""
    rest = image.removeprefix(trusted)
    return rest != image and (rest.startswith("/") or ("/" in trusted and rest[:1] in (":", "@")))


def _registry(resource: Resource, settings: Settings) -> Iterator[str]:
    for image in _images(resource):
        if not any(_of(registry.rstrip("/"), _written_out(image)) for registry in settings.registries):
            yield (
                f"{_written_out(image)} is from none of {', '.join(settings.registries)}; take the image from one of them, "
                "or add its registry in policy/settings.py"
            )


# ---------------------------------------------------------------------- what runs

_VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
_BIND_SERVICE = frozenset({"NET_BIND_SERVICE"})
_HOST = ("hostNetwork", "hostPID", "hostIPC")


def _restricted_pod(resource: Resource, _: Settings) -> Iterator[str]:
    """Check the Pod Security Standard `restricted` (kubernetes.io/docs/concepts/security/pod-security-standards)."""
    pod = _pod(resource) or {}
    for field in _HOST:
        if pod.get(field):
            yield f"{field} makes the pod a part of its node; take it out"
    for volume in pod.get("volumes") or ():
        for kind in sorted(set(volume) - {"name"} - _VOLUMES):
            yield f"volume {volume.get('name')} is a {kind}; use a persistentVolumeClaim or an emptyDir"
    for sysctl in at(pod, "securityContext").get("sysctls") or ():
        yield f"sysctl {sysctl.get('name')} is set; take it out"
    for container in _pod_containers(resource):
        for problem in _restricted_container(container, at(pod, "securityContext")):
            yield f"container {container.get('name')}: {problem} in its securityContext"
        if any(port.get("hostPort") for port in container.get("ports") or ()):
            yield f"container {container.get('name')}: it takes a port of the node; take out hostPort"


def _restricted_container(container: Properties, of_pod: Properties) -> Iterator[str]:
    own = at(container, "securityContext")
    context = {**of_pod, **own}
    capabilities = at(own, "capabilities")
    if own.get("privileged"):
        yield "it is privileged; set privileged: false"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "it may gain privileges; set allowPrivilegeEscalation: false"
    if "ALL" not in (capabilities.get("drop") or ()) or set(capabilities.get("add") or ()) - _BIND_SERVICE:
        yield "it has capabilities; set capabilities: {drop: [ALL]}"
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield "it may be root; set runAsNonRoot: true and a runAsUser above 0"
    if at(context, "seccompProfile").get("type") not in ("RuntimeDefault", "Localhost"):
        yield "its system calls are not filtered; set seccompProfile: {type: RuntimeDefault}"
    if own.get("procMount") not in (None, "Default"):
        yield "it sees more of /proc than others; take out procMount"


def _restricted_namespace(resource: Resource, _: Settings) -> Iterator[str]:
    label = "pod-security.kubernetes.io/enforce"
    if resource.on("kubernetes", "Namespace") and resource.labels.get(label) != "restricted":
        yield f"it takes pods that are not restricted; give it the label {label}: restricted"


def _restricted_on_docker(resource: Resource, settings: Settings) -> Iterator[str]:
    """Check the same as `_restricted_pod`, as far as a Docker engine has it."""
    if not _is_container(resource):
        return
    props, capabilities = resource.props, at(resource.props, "capabilities")
    options = [str(option) for option in props.get("securityOpts") or ()]
    if str(props.get("user") or "").partition(":")[0] in ("", "0", "root"):
        yield f"it may be root; give it a user above 0 (app.{_tier(resource)}.user)"
    if props.get("privileged"):
        yield "it is privileged; take out privileged"
    if not {"no-new-privileges", "no-new-privileges:true"} & set(options):
        yield "it may gain privileges; add no-new-privileges:true to its security_opts"
    if "ALL" not in (capabilities.get("drops") or ()) or set(capabilities.get("adds") or ()) - _BIND_SERVICE:
        yield "it has capabilities; set capabilities: drops=[ALL]"
    if any(option.endswith("unconfined") for option in options):
        yield "its system calls are not filtered; take unconfined out of its security_opts"
    for mode in ("networkMode", "pidMode", "ipcMode", "usernsMode"):
        if props.get(mode) == "host":
            yield f"{mode} makes it a part of the engine's host; take it out"
    if props.get("devices"):
        yield "it has devices of the engine's host; take them out"
    strict, backups = settings.strict(resource.stack), resource.labels.get("tiers.tier") == "backup"
    yield from _folders_of_the_host(props, strict, {BACKUPS} if backups else set())


def _folders_of_the_host(props: Properties, strict: bool, chosen: Collection[str]) -> Iterator[str]:
    binds = [
        (mount.get("source"), mount.get("readOnly"))
        for mount in props.get("mounts") or ()
        if mount["type"] == "bind" and mount.get("target") not in chosen
    ]
    binds += [
        (volume["hostPath"], volume.get("readOnly")) for volume in props.get("volumes") or () if volume.get("hostPath")
    ]
    for source, read_only in binds:
        if strict or not read_only or str(source).endswith(".sock"):
            fix = "put it into the image or a volume" + (" (environment.reload: false)" if strict else "")
            yield f"{source} of the engine's host is mounted; {fix}"


def _limits(resource: Resource, _: Settings) -> Iterator[str]:
    fix = f"set environment.tiers.{_tier(resource)}.cpu and .memory"
    if _is_container(resource):
        missing = [
            resource_name for resource_name in ("cpus", "memory") if not float(resource.props.get(resource_name) or 0)
        ]
        if missing:
            yield f"it may take all of the engine's {' and '.join(missing)}; {fix}"
    for container in [*_pod_containers(resource), *_operated_containers(resource)]:
        limits = at(container, "resources", "limits")
        if missing := [resource_name for resource_name in ("cpu", "memory") if not limits.get(resource_name)]:
            yield f"container {container.get('name')} may take all of the node's {' and '.join(missing)}; {fix}"


# ---------------------------------------------------------------------- who reaches what


def _public_on_docker(resource: Resource, _: Settings) -> Iterator[str]:
    if resource.on("docker", "Network") and resource.name == "data" and not resource.props.get("internal"):
        yield "the network of database and cache leads outside; make it internal"
    if not _is_container(resource):
        return
    labels = resource.labels
    is_local = all(port.get("ip") in ("127.0.0.1", "::1") for port in resource.props.get("ports") or ())
    watches = labels.get("tiers.role") == "watch" and is_local
    if (
        labels.get("tiers.role") != "gateway"
        and not watches
        and (resource.props.get("ports") or resource.props.get("publishAllPorts"))
    ):
        yield "it publishes a port, and only the gateway may; take out its ports and route to it (app.api.paths)"
    if labels.get("tiers.tier") in DATA and labels.get("tiers.role") == "tier":
        names = [str(network["name"]) for network in resource.props.get("networksAdvanced") or ()]
        if outside := [name for name in names if name.endswith("-outside")]:
            yield f"it is on {outside[0]}, which leads outside; leave it on the data network alone"


def _public_on_kubernetes(resource: Resource, _: Settings) -> Iterator[str]:
    spec = at(resource.props, "spec")
    if resource.on("kubernetes", "Service") and (
        spec.get("type") in ("NodePort", "LoadBalancer") or spec.get("externalIPs")
    ):
        yield "it can be reached from outside, and only the Gateway may; make it a ClusterIP without externalIPs"
    if resource.kind.endswith("Route") or resource.on("kubernetes", "Ingress"):
        # Names such as database-pooler and cache-0 count too.
        for name in sorted({name for name in _backends(spec) if name.partition("-")[0] in DATA}):
            yield f"it leads users to {name}; take out that backend"
    if resource.on("kubernetes", "NetworkPolicy") and _selects_data(at(spec, "podSelector")):
        for rule in spec.get("ingress") or ():
            if not rule.get("from") or any("ipBlock" in peer for peer in rule["from"]):
                yield "it lets addresses connect to database or cache; name the pods that may instead (podSelector)"


def _backends(value: Any) -> Iterator[str]:
    """Yield the Services that a route or an Ingress names, at any depth."""
    if isinstance(value, Mapping):
        mapping = cast(Properties, value)
        yield from (backend["name"] for backend in mapping.get("backendRefs") or ())
        yield from [mapping["service"]["name"]] if "service" in mapping else []
        for part in mapping.values():
            yield from _backends(part)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for part in cast(Sequence[Any], value):
            yield from _backends(part)


def _selects_data(selector: Properties) -> bool:
    labels = at(selector, "matchLabels")
    return not selector or labels.get("app.kubernetes.io/name") in DATA or "cnpg.io/cluster" in labels


def _tls(resource: Resource, settings: Settings) -> Iterator[str]:
    spec = at(resource.props, "spec")
    if resource.on("kubernetes", "Gateway"):
        for listener in spec.get("listeners") or ():
            if listener.get("protocol") not in ("HTTPS", "TLS"):
                yield (
                    f"listener {listener.get('name')} is not encrypted; make environment.kubernetes.url https and give "
                    "gateway.create a certificate"
                )
    if resource.on("kubernetes", "HTTPRoute"):
        for parent in spec.get("parentRefs") or ():
            # A Gateway in the same namespace is created by the program and checked itself.
            foreign = parent.get("namespace") not in (None, at(resource.props, "metadata").get("namespace"))
            if foreign and not _secure(parent.get("sectionName"), settings):
                yield (
                    f"it takes requests from {parent.get('sectionName') or 'every listener'} of Gateway "
                    f"{parent.get('name')}, encrypted or not; name the one with the certificate in "
                    "environment.kubernetes.gateway.listener, and the url https (other names: policy/settings.py)"
                )
    if _is_container(resource):
        for port in resource.props.get("ports") or ():
            if port.get("ip") not in ("127.0.0.1", "::1"):
                yield (
                    f"port {port.get('external')} is open to the network and not encrypted; set environment.gateway.address: "
                    "127.0.0.1 and let a proxy with a certificate stand before it"
                )


def _secure(listener: str | None, settings: Settings) -> bool:
    return any(fnmatchcase(listener or "", pattern) for pattern in settings.secure_listeners)


# ---------------------------------------------------------------------- data and secrets

_NO_DATA = re.compile(r"gateway-state|prometheus-.+|.+-secrets(-[0-9a-f]{6})+")
_SECRET_NAME = re.compile(
    r"(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIALS?|API_?KEY|(PRIVATE|ACCESS|SECRET|SIGNING|ENCRYPTION)_KEY)$"
)
_SECRET_VALUE = re.compile(
    r"://[^/\s:@]*:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[A-Z0-9]{16}\b|\bgh[oprsu]_\w{30}"
)


def _protected(resource: Resource, _: Settings) -> Iterator[str]:
    holds_data = resource.on("kubernetes", "PersistentVolumeClaim", "Cluster", "Namespace") or (
        resource.on("docker", "Volume") and not _NO_DATA.fullmatch(resource.name)
    )
    if holds_data and not resource.protect:
        yield "`pulumi destroy` would delete its data; set environment.protect_data: true"


def _plain_secrets(resource: Resource, _: Settings) -> Iterator[str]:
    for name, value in _variables(resource):
        if value and (_SECRET_NAME.search(name) or _SECRET_VALUE.search(value)):
            # The value is never printed, because logs would keep it.
            yield (
                f"{name} looks like a secret in plain text; take it out of env, name it in app.{_tier(resource)}.secrets, "
                "and read the file whose path is in <NAME>_FILE"
            )


def _variables(resource: Resource) -> Iterator[tuple[str, str]]:
    if _is_container(resource):
        for variable in resource.props.get("envs") or ():
            name, _, value = variable.partition("=")
            yield name, value
    for container in _pod_containers(resource):
        for variable in container.get("env") or ():
            yield variable["name"], variable.get("value") or ""


# ---------------------------------------------------------------------- how many


def _replicas(resource: Resource, _: Settings) -> Iterator[str]:
    spec, fix = at(resource.props, "spec"), f"set environment.tiers.{_tier(resource)}.replicas: 2 or more"
    if resource.on("kubernetes", "HorizontalPodAutoscaler") and (spec.get("minReplicas") or 1) < 2:
        yield f"it may leave a single replica, which one failed node stops; {fix}"
    # An exporter serves no users.
    if not resource.on("kubernetes", "Deployment") or resource.labels.get("tiers.role") == "exporter":
        return
    if spec.get("replicas", 1) < 2:
        yield f"it has a single replica, which one failed node stops; {fix}"
    pod = _pod(resource) or {}
    spread = [constraint.get("topologyKey") for constraint in pod.get("topologySpreadConstraints") or ()]
    if "kubernetes.io/hostname" not in spread and not at(pod, "affinity", "podAntiAffinity"):
        yield "all its pods may be on one node; give its pods topologySpreadConstraints over kubernetes.io/hostname"


def _replicas_on_docker(resources: Sequence[Resource], _: Settings) -> Iterator[Problem]:
    """Check the number of replicas over all containers, because each replica is a container of its own."""
    tiers: dict[tuple[str, str], list[Resource]] = {}
    for resource in filter(_is_container, resources):
        labels = resource.labels
        if labels.get("tiers.role") == "tier" and "tiers.slot" in labels:
            tiers.setdefault((labels["tiers.slot"], labels["tiers.tier"]), []).append(resource)
    for (_slot, tier), containers in tiers.items():
        if len(containers) < 2:
            yield containers[0], f"there is one {tier}; set environment.tiers.{tier}.replicas: 2 or more"


# ---------------------------------------------------------------------- the table

RULES = (
    Rule(name="no-latest", demand="Images are named by version or digest.", check=of_each(_latest), strict=True),
    Rule(name="known-registries", demand="Images come from registries that are trusted.", check=of_each(_registry)),
    Rule(
        name="restricted",
        demand="What runs has no rights that it does not need.",
        check=of_each(_restricted_pod, _restricted_namespace, _restricted_on_docker),
    ),
    Rule(name="limits", demand="What runs can't take all that its host has.", check=of_each(_limits)),
    Rule(
        name="private-data",
        demand="Users reach the gateway and nothing else, database and cache least of all.",
        check=of_each(_public_on_docker, _public_on_kubernetes),
    ),
    Rule(name="tls", demand="What users send is encrypted.", check=of_each(_tls), strict=True),
    Rule(name="protected-data", demand="Data can't be deleted by mistake.", check=of_each(_protected), strict=True),
    Rule(name="no-plain-secrets", demand="Secrets are files, not variables.", check=of_each(_plain_secrets)),
    Rule(name="replicas", demand="One host that fails stops nothing.", check=of_each(_replicas), strict=True),
    Rule(
        name="replicas-on-docker",
        demand="One container that fails stops nothing.",
        check=_replicas_on_docker,
        strict=True,
        whole=True,
    ),
)
