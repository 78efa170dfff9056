"""Rules for the resources of an environment, as pure functions.

A rule gets each resource from Pulumi's engine: the type, and the inputs after the provider has checked them. Inputs on
Docker have names in camelCase (kreuzwerker/terraform-provider-docker, bridged by pulumi-docker). Inputs on Kubernetes
are manifests. A rule yields each problem with its fix.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

from components.model import services
from components.safety.data import holds_data

from .model import Problem, Properties, Resource, Rule, Settings, combine_checks, get_path

# ---------------------------------------------------------------------- parts of resources

BACKUPS = "/var/lib/backup"
"""Path in the backup container at which the host's folder for backups is mounted."""
_POD_IN_TEMPLATE = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job")
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def _pod(resource: Resource) -> Properties | None:
    """Return the spec of the pods that a Kubernetes object creates, or None if it creates no pods."""
    if resource.on("kubernetes", "Pod"):
        return get_path(resource.props, "spec")
    if resource.on("kubernetes", "CronJob"):
        return get_path(resource.props, "spec", "jobTemplate", "spec", "template", "spec")
    return (
        get_path(resource.props, "spec", "template", "spec") if resource.on("kubernetes", *_POD_IN_TEMPLATE) else None
    )


def _pod_containers(resource: Resource) -> list[Properties]:
    pod = _pod(resource) or {}
    return [container for group in _CONTAINERS for container in pod.get(group) or ()]


def _tier(resource: Resource) -> str:
    """Return the tier's name for config paths in messages, or `<tier>` if the tier is unknown."""
    labels = resource.labels
    name = labels.get("tiers.tier") or labels.get("app.kubernetes.io/component")
    return name if name in services.common_catalogue().names else "<tier>"


def _data_services() -> tuple[str, ...]:
    """Return the names of the services that both slots share."""
    return tuple(record.name for record in services.common_catalogue().data)


def _leads_to_data(name: str) -> bool:
    """Return True if the name belongs to a data service, such as database, database-pooler or cache-0."""
    return any(name == service or name.startswith(f"{service}-") for service in _data_services())


def _is_container(resource: Resource) -> bool:
    return resource.on("docker", "Container")


def _images(resource: Resource) -> list[str]:
    """Return the images that a resource pulls. Images that are built here, and ids of images, are left out."""
    if resource.on("docker", "RemoteImage"):
        return [] if resource.props.get("build") else [resource.props["name"]]
    if _is_container(resource):
        image = resource.props.get("image") or ""
        return [] if image.startswith("sha256:") else [image]
    # Skip an object of CloudNativePG without an image, because the operator then chooses the image.
    operated = [container["image"] for container in _operated_containers(resource) if container.get("image")]
    return operated + [container["image"] for container in _pod_containers(resource)]


def _operated_containers(resource: Resource) -> list[Properties]:
    """Return the container settings in an object of CloudNativePG. The operator adds all other settings of the containers."""
    spec = get_path(resource.props, "spec")
    if resource.on("kubernetes", "Cluster"):
        return [{"name": "postgres", "image": spec.get("imageName"), "resources": spec.get("resources")}]
    if resource.on("kubernetes", "Pooler"):
        return list(get_path(spec, "template", "spec").get("containers") or ())
    return []


# ---------------------------------------------------------------------- images


def _latest(resource: Resource, _: Settings) -> Iterator[str]:
    for image in _images(resource):
        name, _at, digest = image.partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if not digest and tag in ("", "latest"):
            yield f"{image} has no fixed version; name the version that you tested, or the digest (`make images`)"


def _full_name(image: str) -> str:
    """Return the full name of an image. The default host is `docker.io`, and the default folder on that host `library`."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def _is_below(trusted: str, image: str) -> bool:
    """Return True if `trusted` is the registry, a parent folder or the repository of an image."""
    rest = image.removeprefix(trusted)
    return rest != image and (rest.startswith("/") or ("/" in trusted and rest[:1] in (":", "@")))


def _registry(resource: Resource, settings: Settings) -> Iterator[str]:
    for image in _images(resource):
        name = _full_name(image)
        if not any(_is_below(registry.rstrip("/"), name) for registry in settings.registries):
            folder = name.rpartition("/")[0]
            yield (
                f"{name} is not from a trusted registry ({', '.join(settings.registries)}); use an image from a trusted registry, "
                f'or add "{folder}" to `registries` in policy/settings.py'
            )


# ---------------------------------------------------------------------- pods and containers

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
            yield f"{field} gives the pod access to its node; remove {field}"
    for volume in pod.get("volumes") or ():
        for kind in sorted(set(volume) - {"name"} - _VOLUMES):
            yield f"volume {volume.get('name')} is a {kind}, which is not allowed; use a persistentVolumeClaim or an emptyDir"
    for sysctl in get_path(pod, "securityContext").get("sysctls") or ():
        yield f"sysctl {sysctl.get('name')} is set in the pod; remove this sysctl"
    for container in _pod_containers(resource):
        for problem in _restricted_container(container, get_path(pod, "securityContext")):
            yield f"container {container.get('name')}: {problem} in its securityContext"
        if any(port.get("hostPort") for port in container.get("ports") or ()):
            yield f"container {container.get('name')}: the container opens a port of the node; remove hostPort"


def _restricted_container(container: Properties, pod_context: Properties) -> Iterator[str]:
    container_context = get_path(container, "securityContext")
    context = {**pod_context, **container_context}
    capabilities = get_path(container_context, "capabilities")
    if container_context.get("privileged"):
        yield "the container is privileged; set privileged: false"
    if container_context.get("allowPrivilegeEscalation") is not False:
        yield "the container may gain privileges; set allowPrivilegeEscalation: false"
    if "ALL" not in (capabilities.get("drop") or ()) or set(capabilities.get("add") or ()) - _BIND_SERVICE:
        yield "the container has capabilities; set capabilities: {drop: [ALL]}"
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield "the container may run as root; set runAsNonRoot: true and a runAsUser above 0"
    if get_path(context, "seccompProfile").get("type") not in ("RuntimeDefault", "Localhost"):
        yield "system calls of the container are not filtered; set seccompProfile: {type: RuntimeDefault}"
    if container_context.get("procMount") not in (None, "Default"):
        yield "the container sees all of /proc; remove procMount"


def _restricted_namespace(resource: Resource, _: Settings) -> Iterator[str]:
    label = "pod-security.kubernetes.io/enforce"
    if resource.on("kubernetes", "Namespace") and resource.labels.get(label) != "restricted":
        yield f"the namespace accepts pods without restrictions; give the namespace the label {label}: restricted"


def _restricted_on_docker(resource: Resource, settings: Settings) -> Iterator[str]:
    """Check the requirements of `_restricted_pod` that exist on Docker."""
    if not _is_container(resource):
        return
    props, capabilities = resource.props, get_path(resource.props, "capabilities")
    options = [str(option) for option in props.get("securityOpts") or ()]
    if str(props.get("user") or "").partition(":")[0] in ("", "0", "root"):
        yield f"the container may run as root; set a user above 0 (app.{_tier(resource)}.user)"
    if props.get("privileged"):
        yield "the container is privileged; remove privileged"
    if not {"no-new-privileges", "no-new-privileges:true"} & set(options):
        yield "the container may gain privileges; add no-new-privileges:true to security_opts"
    if "ALL" not in (capabilities.get("drops") or ()) or set(capabilities.get("adds") or ()) - _BIND_SERVICE:
        yield "the container has capabilities; set capabilities: drops=[ALL]"
    if any(option.endswith("unconfined") for option in options):
        yield "system calls of the container are not filtered; remove unconfined from security_opts"
    for mode in ("networkMode", "pidMode", "ipcMode", "usernsMode"):
        if props.get(mode) == "host":
            yield f"{mode} gives the container access to the engine's host; remove {mode}"
    if props.get("devices"):
        yield "the container has devices of the engine's host; remove devices"
    # The backup of a store is named after the store, such as `mysql-backup`.
    strict, backups = settings.strict(resource.stack), f"-{resource.labels.get('tiers.tier')}".endswith("-backup")
    yield from _folders_of_the_host(props, strict, {BACKUPS} if backups else set())


def _folders_of_the_host(props: Properties, strict: bool, allowed_targets: Collection[str]) -> Iterator[str]:
    binds = [
        (mount.get("source"), mount.get("readOnly"))
        for mount in props.get("mounts") or ()
        if mount["type"] == "bind" and mount.get("target") not in allowed_targets
    ]
    binds += [
        (volume["hostPath"], volume.get("readOnly")) for volume in props.get("volumes") or () if volume.get("hostPath")
    ]
    for source, read_only in binds:
        if strict or not read_only or str(source).endswith(".sock"):
            fix = "copy it into the image or a volume" + (" (environment.reload: false)" if strict else "")
            yield f"{source} of the engine's host is mounted; {fix}"


def _limits(resource: Resource, _: Settings) -> Iterator[str]:
    fix = f"set environment.tiers.{_tier(resource)}.cpu and .memory"
    if _is_container(resource):
        missing = [
            resource_name for resource_name in ("cpus", "memory") if not float(resource.props.get(resource_name) or 0)
        ]
        if missing:
            yield f"the container may use all of the engine's {' and '.join(missing)}; {fix}"
    for container in [*_pod_containers(resource), *_operated_containers(resource)]:
        limits = get_path(container, "resources", "limits")
        if missing := [resource_name for resource_name in ("cpu", "memory") if not limits.get(resource_name)]:
            yield f"container {container.get('name')} may use all of the node's {' and '.join(missing)}; {fix}"


# ---------------------------------------------------------------------- network


def _public_on_docker(resource: Resource, _: Settings) -> Iterator[str]:
    if resource.on("docker", "Network") and resource.name == "data" and not resource.props.get("internal"):
        yield f"the network of {' and '.join(_data_services())} gives access to the outside; set internal: true for this network"
    if not _is_container(resource):
        return
    labels = resource.labels
    is_local = all(port.get("ip") in ("127.0.0.1", "::1") for port in resource.props.get("ports") or ())
    is_monitoring = labels.get("tiers.role") == "watch" and is_local
    if (
        labels.get("tiers.role") != "gateway"
        and not is_monitoring
        and (resource.props.get("ports") or resource.props.get("publishAllPorts"))
    ):
        yield "the container publishes a port, which only the gateway may do; remove ports, and add a route (app.api.paths)"
    if labels.get("tiers.tier") in _data_services() and labels.get("tiers.role") == "tier":
        names = [str(network["name"]) for network in resource.props.get("networksAdvanced") or ()]
        if outside := [name for name in names if name.endswith("-outside")]:
            yield f"the container is on the network {outside[0]}, which gives access to the outside; use only the data network"


def _public_on_kubernetes(resource: Resource, _: Settings) -> Iterator[str]:
    spec = get_path(resource.props, "spec")
    if resource.on("kubernetes", "Service") and (
        spec.get("type") in ("NodePort", "LoadBalancer") or spec.get("externalIPs")
    ):
        yield "the Service can be reached from outside, which only the Gateway may be; use type ClusterIP without externalIPs"
    if resource.kind.endswith("Route") or resource.on("kubernetes", "Ingress"):
        for name in sorted({name for name in _backends(spec) if _leads_to_data(name)}):
            yield f"the route leads users to {name}; remove this backend"
    if resource.on("kubernetes", "NetworkPolicy") and _selects_data(get_path(spec, "podSelector")):
        for rule in spec.get("ingress") or ():
            if not rule.get("from") or any("ipBlock" in peer for peer in rule["from"]):
                yield f"the NetworkPolicy lets all pods or IP addresses connect to {' or '.join(_data_services())}; select the allowed pods (podSelector)"


def _backends(value: Any) -> Iterator[str]:
    """Yield the names of the Services in a route or an Ingress, at any depth."""
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
    labels = get_path(selector, "matchLabels")
    return not selector or labels.get("app.kubernetes.io/name") in _data_services() or "cnpg.io/cluster" in labels


def _tls(resource: Resource, settings: Settings) -> Iterator[str]:
    spec = get_path(resource.props, "spec")
    if resource.on("kubernetes", "Gateway"):
        for listener in spec.get("listeners") or ():
            if listener.get("protocol") not in ("HTTPS", "TLS"):
                yield (
                    f"listener {listener.get('name')} is not encrypted; use https in environment.kubernetes.url, and set "
                    "gateway.create.certificate"
                )
    if resource.on("kubernetes", "HTTPRoute"):
        for parent in spec.get("parentRefs") or ():
            # A Gateway in the same namespace is created by the program, and has its own check.
            foreign = parent.get("namespace") not in (None, get_path(resource.props, "metadata").get("namespace"))
            if foreign and not _is_secure_listener(parent.get("sectionName"), settings):
                yield (
                    f"the route accepts requests from {parent.get('sectionName') or 'every listener'} of Gateway "
                    f"{parent.get('name')}, even without encryption; set environment.kubernetes.gateway.listener to the listener "
                    "with the certificate, and use https in url (policy/settings.py lists the names of such listeners)"
                )
    if _is_container(resource):
        for port in resource.props.get("ports") or ():
            if port.get("ip") not in ("127.0.0.1", "::1"):
                yield (
                    f"port {port.get('external')} is open to the network and not encrypted; set environment.gateway.address: "
                    "127.0.0.1, and put a proxy with a certificate in front of the gateway"
                )


def _is_secure_listener(listener: str | None, settings: Settings) -> bool:
    return any(fnmatchcase(listener or "", pattern) for pattern in settings.secure_listeners)


# ---------------------------------------------------------------------- data and secrets

_SECRET_NAME = re.compile(
    r"(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIALS?|API_?KEY|(PRIVATE|ACCESS|SECRET|SIGNING|ENCRYPTION)_KEY)$"
)
_SECRET_VALUE = re.compile(
    r"://[^/\s:@]*:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[A-Z0-9]{16}\b|\bgh[oprsu]_\w{30}"
)


def _protected(resource: Resource, _: Settings) -> Iterator[str]:
    if holds_data(resource.urn, resource.labels) and not resource.protect:
        yield "`pulumi destroy` would delete the data of this resource; set environment.protect_data: true"


def _plain_secrets(resource: Resource, _: Settings) -> Iterator[str]:
    for name, value in _variables(resource):
        if value and (_SECRET_NAME.search(name) or _SECRET_VALUE.search(value)):
            # The value is never printed, because logs would keep it.
            yield (
                f"{name} looks like a secret in plain text; set {name} in app.{_tier(resource)}.secret_env to `${{secrets.NAME}}` instead of env, "
                "or read the secret from a file (app.{_tier(resource)}.secrets)"
            )


def _variables(resource: Resource) -> Iterator[tuple[str, str]]:
    if _is_container(resource):
        for variable in resource.props.get("envs") or ():
            name, _, value = variable.partition("=")
            yield name, value
    for container in _pod_containers(resource):
        for variable in container.get("env") or ():
            yield variable["name"], variable.get("value") or ""


# ---------------------------------------------------------------------- replicas


def _replicas(resource: Resource, _: Settings) -> Iterator[str]:
    spec, fix = get_path(resource.props, "spec"), f"set environment.tiers.{_tier(resource)}.replicas: 2 or more"
    if resource.on("kubernetes", "HorizontalPodAutoscaler") and (spec.get("minReplicas") or 1) < 2:
        yield f"the autoscaler may leave a single replica, so one failed node stops the tier; {fix}"
    # One replica is enough for an exporter of metrics, because it serves no users.
    if not resource.on("kubernetes", "Deployment") or resource.labels.get("tiers.role") == "exporter":
        return
    if spec.get("replicas", 1) < 2:
        yield f"the Deployment has a single replica, so one failed node stops the tier; {fix}"
    pod = _pod(resource) or {}
    spread = [constraint.get("topologyKey") for constraint in pod.get("topologySpreadConstraints") or ()]
    if "kubernetes.io/hostname" not in spread and not get_path(pod, "affinity", "podAntiAffinity"):
        yield "all pods of the Deployment may be on one node; set topologySpreadConstraints for kubernetes.io/hostname"


def _replicas_on_docker(resources: Sequence[Resource], _: Settings) -> Iterator[Problem]:
    """Check that each tier has at least two replicas. On Docker each replica is a separate container."""
    tiers: dict[tuple[str, str], list[Resource]] = {}
    for resource in filter(_is_container, resources):
        labels = resource.labels
        if labels.get("tiers.role") == "tier" and "tiers.slot" in labels:
            tiers.setdefault((labels["tiers.slot"], labels["tiers.tier"]), []).append(resource)
    for (_slot, tier), containers in tiers.items():
        if len(containers) < 2:
            yield containers[0], f"{tier} has a single replica; set environment.tiers.{tier}.replicas: 2 or more"


# ---------------------------------------------------------------------- the table

RULES = (
    Rule(name="no-latest", demand="Images are named by version or digest.", check=combine_checks(_latest), strict=True),
    Rule(
        name="known-registries", demand="Images come from registries that are trusted.", check=combine_checks(_registry)
    ),
    Rule(
        name="restricted",
        demand="Containers have no privileges that they do not need.",
        check=combine_checks(_restricted_pod, _restricted_namespace, _restricted_on_docker),
    ),
    Rule(name="limits", demand="Containers have limits of CPU and memory.", check=combine_checks(_limits)),
    Rule(
        name="private-data",
        demand="Users can connect only to the gateway, never to database or cache.",
        check=combine_checks(_public_on_docker, _public_on_kubernetes),
    ),
    Rule(name="tls", demand="Connections of users are encrypted.", check=combine_checks(_tls), strict=True),
    Rule(
        name="protected-data", demand="Data can't be deleted by mistake.", check=combine_checks(_protected), strict=True
    ),
    Rule(name="no-plain-secrets", demand="Secrets are files, not variables.", check=combine_checks(_plain_secrets)),
    Rule(name="replicas", demand="A failed host does not stop a tier.", check=combine_checks(_replicas), strict=True),
    Rule(
        name="replicas-on-docker",
        demand="A failed container does not stop a tier.",
        check=_replicas_on_docker,
        strict=True,
        whole=True,
    ),
)
