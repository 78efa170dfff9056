"""Validation of rendered objects against the rules of the Kubernetes API and of Docker.

Sources of the rules: Kubernetes 1.34 (pkg/apis/*/validation), Gateway API 1.3 (CRD schemas and their CEL rules), and
Docker's distribution/reference. Each function yields one line per problem, and nothing for a valid object.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from posixpath import normpath
from typing import Any

from components.platforms.kubernetes.objects import Manifest

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
DNS_1035 = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
QUALIFIED = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
ENV = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]i?|Ki)?")
HOSTNAME = re.compile(r"(?=.{1,253}$)(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
URL_PATH = re.compile(r"/([A-Za-z0-9/\-._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*")
REFERENCE = re.compile(
    r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::\d+)?)/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
DOCKER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
ERROR = re.compile(r"(?:app|environment|secrets|stack)[^\n]*?: [^\n]+; [^\n]+")
MEBIBYTE = 2**20
ONE_TEXT, ALL_TEXTS = 128 * 1024 - 1, 2 * MEBIBYTE
"""Limits of Linux in bytes.

ONE_TEXT is the limit of one argument or environment variable (MAX_ARG_STRLEN). ALL_TEXTS is the limit of the sum of all
arguments and environment variables of a process.
"""


def error_problems(text: str) -> Iterator[str]:
    """Yield the problems of an error message.

    Each line must contain a path, a problem and a fix. No line may contain text of pydantic or Python, such as
    `Input should` or `NoneType`.
    """
    for line in text.splitlines():
        if not ERROR.fullmatch(line):
            yield f"error without path or fix: {line}"
        if re.search(
            r"see docs/configuration|valid tuple|instance of|Input should|valid string|value_error|NoneType|pydantic|<class",
            line,
        ):
            yield f"error with text of pydantic or Python: {line}"


# ---------------------------------------------------------------------- Kubernetes


def kubernetes_problems(objects: Sequence[Manifest]) -> Iterator[str]:
    """Yield the problems of all Kubernetes objects of a stack."""
    counts = Counter((manifest["kind"], manifest["metadata"]["name"]) for manifest in objects)
    yield from (f"{kind}/{name}: twice" for (kind, name), count in counts.items() if count > 1)
    for manifest in objects:
        where = f"{manifest['kind']}/{manifest['metadata']['name']}"
        yield from (f"{where}: {problem}" for problem in _object(manifest))


def _object(manifest: Manifest) -> Iterator[str]:
    kind, metadata, spec = manifest["kind"], manifest["metadata"], manifest.get("spec", {})
    pattern = {"Service": DNS_1035, "Namespace": DNS_LABEL}.get(kind, SUBDOMAIN)
    if not pattern.fullmatch(metadata["name"]):
        yield "invalid name"
    if kind == "CronJob" and len(metadata["name"]) > 52:
        yield "name of a CronJob over 52 characters"
    if "namespace" in metadata and not DNS_LABEL.fullmatch(metadata["namespace"]):
        yield f"invalid namespace {metadata['namespace']!r}"
    yield from _labels(manifest)
    if sum(len(str(key)) + len(str(value)) for key, value in (metadata.get("annotations") or {}).items()) > 256 * 1024:
        yield "annotations over 256 KiB"
    if kind in ("ConfigMap", "Secret"):
        yield from _data({**(manifest.get("data") or {}), **(manifest.get("stringData") or {})})
    yield from {
        "HTTPRoute": _route,
        "NetworkPolicy": _policy,
        "CronJob": lambda spec: cron_problems(spec["schedule"]),
        "HorizontalPodAutoscaler": _autoscaler,
        "PersistentVolumeClaim": _claim,
        "Gateway": _gateway,
    }.get(kind, lambda _: iter(()))(spec)
    if kind != "Pooler":  # The pod template of a Pooler is partial: the operator adds the other fields.
        for template in _templates(spec):
            yield from _pod(template.get("spec", {}))
    if len(json.dumps(manifest)) > 1.5 * MEBIBYTE:
        yield "over 1.5 MiB, the limit of etcd"


def _templates(spec: Mapping[str, Any]) -> Iterator[Manifest]:
    if "jobTemplate" in spec:
        yield from _templates(spec["jobTemplate"]["spec"])
    if "containers" in spec.get("template", {}).get("spec", {}):
        yield spec["template"]


def _labels(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            if key in ("labels", "matchLabels") and isinstance(part, Mapping) and "expr" not in value:
                yield from (problem for entry in part.items() for problem in _label(*entry))
            else:
                yield from _labels(part)
    elif isinstance(value, list):
        for part in value:
            yield from _labels(part)


def _label(key: str, value: Any) -> Iterator[str]:
    prefix, slash, name = key.rpartition("/")
    if not QUALIFIED.fullmatch(name) or (slash and not SUBDOMAIN.fullmatch(prefix)):
        yield f"invalid label key {key!r}"
    if not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
        yield f"invalid label {key}={value!r}"


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"invalid key {key!r}" for key in data if not KEY.fullmatch(key) or key in (".", ".."))
    yield from (f"value of {key} is not a string" for key, value in data.items() if not isinstance(value, str))
    if sum(len(str(value).encode()) for value in data.values()) > MEBIBYTE:
        yield "over 1 MiB"


def _pod(spec: Manifest) -> Iterator[str]:
    volumes = [volume["name"] for volume in spec.get("volumes", ())]
    yield from (f"volume {name!r} twice" for name, count in Counter(volumes).items() if count > 1)
    yield from (f"invalid volume name {name!r}" for name in volumes if not DNS_LABEL.fullmatch(name))
    yield from (
        f"invalid image pull secret {entry['name']!r}"
        for entry in spec.get("imagePullSecrets", ())
        if not SUBDOMAIN.fullmatch(entry["name"])
    )
    containers = [*spec["containers"], *spec.get("initContainers", ())]
    yield from (
        f"container {name!r} twice"
        for name, count in Counter(container["name"] for container in containers).items()
        if count > 1
    )
    for container in containers:
        yield from (f"container {container['name']}: {problem}" for problem in _container(container, volumes))
    for key, least in (("terminationGracePeriodSeconds", 0), ("activeDeadlineSeconds", 1)):
        if key in spec and not least <= spec[key] < 2**31:
            yield f"invalid {key} {spec[key]}"


def _container(container: Manifest, volumes: Sequence[str]) -> Iterator[str]:
    if not DNS_LABEL.fullmatch(container["name"]):
        yield "invalid name"
    if not REFERENCE.fullmatch(container["image"]):
        yield f"invalid image {container['image']!r}"
    mounts = container.get("volumeMounts", ())
    yield from (f"mount of an undeclared volume {mount['name']!r}" for mount in mounts if mount["name"] not in volumes)
    yield from _targets([mount["mountPath"] for mount in mounts])
    yield from (f"invalid mount path {mount['mountPath']!r}" for mount in mounts if ":" in mount["mountPath"])
    for variable in container.get("env", ()):
        if not ENV.fullmatch(variable["name"]):
            yield f"invalid variable {variable['name']!r}"
        if not isinstance(variable.get("value", ""), str) or "\0" in variable.get("value", ""):
            yield f"invalid value of variable {variable['name']}"
    yield from (
        f"variable {name} twice"
        for name, count in Counter(variable["name"] for variable in container.get("env", ())).items()
        if count > 1
    )
    yield from (
        f"invalid port {port['containerPort']}"
        for port in container.get("ports", ())
        if not 1 <= port["containerPort"] <= 65535
    )
    if any(not isinstance(word, str) or "\0" in word for word in container.get("command", ())):
        yield "invalid command"
    yield from _process(
        [
            *container.get("command", ()),
            *(f"{variable['name']}={variable.get('value', '')}" for variable in container.get("env", ())),
        ]
    )
    limits = container["resources"]["limits"]
    for kind, amounts in container["resources"].items():
        for name, amount in amounts.items():
            if not QUANTITY.fullmatch(amount):
                yield f"invalid {kind} {name} {amount!r}"
            elif kind == "requests" and _amount(amount) > _amount(limits[name]):
                yield f"requests more {name} than its limit"
    for probe in (container[key] for key in ("startupProbe", "readinessProbe", "livenessProbe") if key in container):
        if any(not 1 <= probe.get(key, 1) < 2**31 for key in ("periodSeconds", "timeoutSeconds", "failureThreshold")):
            yield "invalid times of a probe"
        path = probe.get("httpGet", {}).get("path", "/")
        if not URL_PATH.fullmatch(path):
            yield f"invalid path of a probe {path!r}"


def _process(texts: Sequence[str]) -> Iterator[str]:
    """Yield a problem if the command or the environment variables of a process exceed the limits of Linux."""
    sizes = [len(text.encode()) + 1 for text in texts]
    if max(sizes, default=0) > ONE_TEXT:
        yield f"an argument or variable of {max(sizes)} bytes"
    if sum(sizes) > ALL_TEXTS:
        yield f"{sum(sizes)} bytes of command and variables"


def _amount(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", text).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return (
        float(number) * {"": 1, "m": 0.001, "k": 1e3, "Ki": 2**10, "M": 1e6, "Mi": 2**20, "G": 1e9, "Gi": 2**30}[unit]
    )


def _targets(paths: Sequence[str]) -> Iterator[str]:
    """Yield the problems of mount targets: relative paths, duplicates, too long paths, and the root folder."""
    for path in paths:
        if not path.startswith("/") or normpath(path).strip("/") == "" or "\0" in path or len(path.encode()) > 4095:
            yield f"invalid mount target {path!r}"
        if any(len(part.encode()) > 255 for part in path.split("/")):
            yield f"mount target {path[:20]!r}… with a part over 255 bytes"
    same = Counter("/" + normpath(path).strip("/") for path in paths)
    yield from (f"mount target {path!r} twice" for path, count in same.items() if count > 1)


def _route(spec: Manifest) -> Iterator[str]:
    rules, hostnames = spec["rules"], spec["hostnames"]
    if not 1 <= len(rules) <= 16:
        yield f"{len(rules)} rules; at most 16 are allowed"
    if len(hostnames) > 16:
        yield f"{len(hostnames)} hostnames; at most 16 are allowed"
    yield from (f"invalid hostname {host!r}" for host in hostnames if not HOSTNAME.fullmatch(host))
    matches = [match for rule in rules for match in rule.get("matches", ())]
    if len(matches) > 128:
        yield f"{len(matches)} matches; at most 128 are allowed"
    yield from (
        f"{len(rule['matches'])} matches in a rule; at most 64 are allowed"
        for rule in rules
        if len(rule["matches"]) > 64
    )
    for match in matches:
        value = match["path"]["value"]
        if match["path"]["type"] == "RegularExpression":
            yield from _expression(value)
        elif len(value) > 1024 or not URL_PATH.fullmatch(value) or re.search(r"//|/\.\.?(/|$)|%2[fF]|#", value):
            yield f"invalid path {value!r}"
        yield from (
            f"invalid header {header['name']}"
            for header in match.get("headers", ())
            if not 1 <= len(header["value"]) <= 4096
        )
    yield from (
        f"invalid port {ref['port']}" for rule in rules for ref in rule["backendRefs"] if not 1 <= ref["port"] <= 65535
    )


def _expression(text: str) -> Iterator[str]:
    try:
        re.compile(text)
    except re.error:
        yield f"invalid expression {text!r}"
    if len(text) > 1024:
        yield "expression over 1024 characters"


def _gateway(spec: Manifest) -> Iterator[str]:
    names = Counter(listener["name"] for listener in spec["listeners"])
    yield from (f"listener {name} twice" for name, count in names.items() if count > 1)
    if len(spec["listeners"]) > 64:
        yield "over 64 listeners"
    yield from (
        f"invalid hostname {listener['hostname']!r}"
        for listener in spec["listeners"]
        if not HOSTNAME.fullmatch(listener["hostname"])
    )
    yield from (
        f"invalid port {listener['port']}" for listener in spec["listeners"] if not 1 <= listener["port"] <= 65535
    )


def _policy(spec: Manifest) -> Iterator[str]:
    for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
        for peer in (*rule.get("from", ()), *rule.get("to", ())):
            if block := peer.get("ipBlock"):
                for cidr in (block["cidr"], *block.get("except", ())):
                    try:
                        ip_network(cidr, strict=False)  # Kubernetes 1.33 only warns about host bits.
                    except ValueError:
                        yield f"invalid cidr {cidr!r}"
        yield from (f"invalid port {port['port']}" for port in rule.get("ports", ()) if not 1 <= port["port"] <= 65535)


def _autoscaler(spec: Manifest) -> Iterator[str]:
    if not 1 <= spec["minReplicas"] <= spec["maxReplicas"]:
        yield "minReplicas over maxReplicas"


def _claim(spec: Manifest) -> Iterator[str]:
    if _amount(spec["resources"]["requests"]["storage"]) <= 0:
        yield "storage of 0 bytes"


_NAMES = {name: number for names in ("sun mon tue wed thu fri sat", "- jan feb mar apr may jun jul aug sep oct nov dec")
          for number, name in enumerate(names.split())}  # fmt: skip
_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def cron_problems(text: str) -> Iterator[str]:
    """Yield the problems of a schedule. Kubernetes (robfig/cron) requires ascending ranges and positive steps."""
    parts = text.split()
    if len(parts) != 5:
        yield f"invalid schedule {text!r}"
        return
    for part, (least, most) in zip(parts, _FIELDS, strict=True):
        for piece in part.split(","):
            span, _, step = piece.partition("/")
            first, _, last = span.partition("-")
            numbers = [_NAMES.get(word, int(word) if word.isdigit() else -1) for word in (first, last or first)]
            if span != "*" and not least <= numbers[0] <= numbers[1] <= most:
                yield f"schedule {text!r}: invalid range {piece}"
            if step and not (step.isdigit() and int(step) > 0):
                yield f"schedule {text!r}: invalid step {step}"
    if not parts[2].startswith("*") and not parts[4].startswith("*"):
        yield f"schedule {text!r}: Kubernetes runs it on either of two days, APScheduler only if both match"


# ---------------------------------------------------------------------- Docker


def docker_problems(resources: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """Yield the problems of all Docker resources of a stack.

    Args:
        resources: Pair of kind and inputs for each resource. A kind is Container, Volume, Network or RemoteImage.
    """
    names = Counter((kind, inputs["name"]) for kind, inputs in resources if kind != "RemoteImage")
    yield from (f"{kind}/{name}: twice" for (kind, name), count in names.items() if count > 1)
    published = Counter(
        (port.get("ip"), port["external"]) for _, inputs in resources for port in inputs.get("ports") or ()
    )
    yield from (f"port {port}: published twice" for port, count in published.items() if count > 1)
    for kind, inputs in resources:
        pattern = REFERENCE if kind == "RemoteImage" else DOCKER_NAME
        if not pattern.fullmatch(inputs["name"]):
            yield f"{kind}/{inputs['name']!r}: invalid name"
        if kind == "RemoteImage" and len(inputs["name"].partition("@")[0].rpartition(":")[0]) > 255:
            yield f"{kind}/{inputs['name']}: repository over 255 characters"
        if kind == "Container":
            yield from (f"Container/{inputs['name']}: {problem}" for problem in _docker_container(inputs))


def _docker_container(inputs: Mapping[str, Any]) -> Iterator[str]:
    targets = [*(inputs.get("tmpfs") or ())]
    targets += [volume["containerPath"] for volume in inputs.get("volumes") or ()]
    targets += [mount["target"] for mount in inputs.get("mounts") or ()]
    yield from _targets(targets)
    yield from (f"invalid tmpfs target {path!r}" for path in inputs.get("tmpfs") or () if ":" in path)
    for text in inputs.get("envs") or ():
        if "\0" in text or not re.match(r"[^=]+=", text):
            yield f"invalid variable {text[:40]!r}"
    words: Sequence[str] = inputs.get("command") or ()
    if any("\0" in word for word in words):
        yield "invalid command"
    if len(words) > 1 and words[0] == "timeout" and not re.fullmatch(r"\d+(\.\d+)?", words[1]):
        yield f"invalid timeout {words[1]}"
    yield from _process([*words, *(inputs.get("envs") or ())])
    if inputs["memory"] < 6:
        yield "memory under 6 MiB"
    if not 0 < float(inputs["cpus"]) <= 256:
        yield f"invalid cpus {inputs['cpus']}"
    health = inputs.get("healthcheck") or {}
    for key in ("interval", "timeout", "startPeriod"):
        if key in health and not re.fullmatch(r"(\d+h)?(\d+m)?(\d+s)?", health[key]):
            yield f"invalid healthcheck {key} {health[key]!r}"
    for upload in inputs.get("uploads") or ():
        if not upload.get("content") or not upload["file"].startswith("/"):
            yield f"upload {upload['file']!r}: empty content, or a relative path"
    for port in inputs.get("ports") or ():
        if not (1 <= port["internal"] <= 65535 and 1 <= port["external"] <= 65535):
            yield f"invalid port {port}"
