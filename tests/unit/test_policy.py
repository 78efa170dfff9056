"""Policy rules: they accept every object of the program, and refuse each change that breaks a rule, with the fix."""

import copy
import os
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

from policy.__main__ import judge, seen
from policy.model import Resource, Rule, Settings
from policy.rules import RULES
from policy.settings import SETTINGS

from .program import ROOT, SECRETS, Deployment, Registered, deploy, environment, first, second

# Registries of the images that `program` pins.
TRUSTING = replace(SETTINGS, registries=(*SETTINGS.registries, "registry.test", "ghcr.io/team/one"))
BY_NAME = {rule.name: rule for rule in RULES}
STRICT = {rule.name for rule in RULES if rule.strict}


@cache
def single_server() -> Deployment:
    """Deploy prod on one Docker engine."""
    size = {"replicas": 2}
    tiers = {"web": size, "api": size, "worker": size}
    return deploy(env=environment("dev") | {"reload": False, "protect_data": True, "tiers": tiers}, stack="prod")


@cache
def backed_up() -> Deployment:
    """Deploy prod on one Docker engine, with backups in a folder of its host."""
    size = {"replicas": 2}
    tiers = {"web": size, "api": size, "worker": size, "database": {"backup": {"target": {"directory": "/srv"}}}}
    settings = environment("dev") | {"reload": False, "protect_data": True, "tiers": tiers}
    return deploy(env=settings, stack="prod", secrets=SECRETS | {"backup-key": "the-key-of-backups"})


def resources(deployed: Deployment, stack: str) -> list[Resource]:
    return [as_seen(entry, stack) for entry in deployed]


def as_seen(entry: Registered, stack: str) -> Resource:
    is_kept = entry.ignores == ("*",)
    return Resource(
        type=entry.type, name=entry.name, stack=stack, props=entry.inputs, protect=entry.protect, kept=is_kept
    )


def problems(rule: Rule, resources: Sequence[Resource], settings: Settings = TRUSTING) -> list[str]:
    return [problem for _, problem in rule.problems(resources, settings)]


# ---------------------------------------------------------------------- accepted objects


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("stack", ["dev", "staging", "prod", "single-server", "backed-up"])
def test_every_object_of_the_program_passes_every_rule(stack: str, rule: Rule) -> None:
    alone = {"single-server": single_server, "backed-up": backed_up}
    releases = [alone[stack]()] if stack in alone else [first(stack), second(stack)]
    for release in releases:
        objects = resources(release, stack)
        assert len(objects) > 30
        assert problems(rule, objects) == []


# ---------------------------------------------------------------------- refused changes


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A change to one object of prod that a rule refuses; the refusal contains `fix`."""

    rule: str
    target: str
    change: Callable[[dict[str, Any]], object]
    fix: str


def container(props: dict[str, Any]) -> dict[str, Any]:
    return props["spec"]["template"]["spec"]["containers"][0]


def context(props: dict[str, Any]) -> dict[str, Any]:
    return container(props)["securityContext"]


def put(**more: Any) -> Callable[[dict[str, Any]], object]:
    return lambda props: props.update(more)


def into(target: Callable[[dict[str, Any]], dict[str, Any]], **more: Any) -> Callable[[dict[str, Any]], object]:
    return lambda props: target(props).update(more)


def spec(props: dict[str, Any]) -> dict[str, Any]:
    return props["spec"]


def pod(props: dict[str, Any]) -> dict[str, Any]:
    return props["spec"]["template"]["spec"]


def without(*keys: str) -> Callable[[dict[str, Any]], object]:
    return lambda props: [props.pop(key, None) for key in keys]


ON_DOCKER = [
    Broken(rule="no-latest", target="image-haproxy:2.6-bookworm", change=put(name="haproxy"), fix="name the version"),
    Broken(rule="no-latest", target="gateway", change=put(image="host:5000/haproxy:latest"), fix="name the version"),
    Broken(
        rule="known-registries",
        target="image-redis:7-bookworm",
        change=put(name="quay.io/x/redis:7"),
        fix="settings.py",
    ),
    Broken(rule="known-registries", target="gateway", change=put(image="someone/haproxy:2.6"), fix="settings.py"),
    Broken(rule="restricted", target="blue-api-1", change=put(user="0:0"), fix="app.api.user"),
    Broken(rule="restricted", target="blue-api-1", change=without("user"), fix="app.api.user"),
    Broken(rule="restricted", target="blue-api-1", change=put(privileged=True), fix="take out privileged"),
    Broken(rule="restricted", target="blue-api-1", change=put(securityOpts=[]), fix="no-new-privileges:true"),
    Broken(
        rule="restricted",
        target="blue-api-1",
        change=put(securityOpts=["no-new-privileges:true", "seccomp=unconfined"]),
        fix="take unconfined out",
    ),
    Broken(rule="restricted", target="blue-api-1", change=without("capabilities"), fix="drops=[ALL]"),
    Broken(
        rule="restricted",
        target="blue-api-1",
        change=put(capabilities={"drops": ["ALL"], "adds": ["SYS_ADMIN"]}),
        fix="drops=[ALL]",
    ),
    Broken(rule="restricted", target="blue-smoke", change=put(networkMode="host"), fix="take it out"),
    Broken(rule="restricted", target="blue-smoke", change=put(devices=[{"hostPath": "/dev/sda"}]), fix="take them out"),
    Broken(
        rule="restricted",
        target="blue-api-1",
        change=put(mounts=[{"type": "bind", "source": "/srv/app", "target": "/app", "readOnly": True}]),
        fix="environment.reload: false",
    ),
    Broken(
        rule="restricted",
        target="gateway",
        change=put(volumes=[{"hostPath": "/var/run/docker.sock", "containerPath": "/sock", "readOnly": True}]),
        fix="put it into the image or a volume",
    ),
    Broken(rule="limits", target="database-1", change=put(memory=0), fix="environment.tiers.database.cpu and .memory"),
    Broken(rule="limits", target="blue-web-1", change=without("cpus"), fix="environment.tiers.web.cpu and .memory"),
    Broken(rule="private-data", target="database-1", change=put(ports=[{"internal": 5432}]), fix="take out its ports"),
    Broken(rule="private-data", target="cache-1", change=put(publishAllPorts=True), fix="take out its ports"),
    Broken(
        rule="private-data",
        target="cache-1",
        change=put(networksAdvanced=[{"name": "board-prod-outside"}]),
        fix="leave it on the data network",
    ),
    Broken(rule="private-data", target="data", change=put(internal=False), fix="make it internal"),
    Broken(
        rule="tls",
        target="gateway",
        change=put(ports=[{"external": 80, "ip": "0.0.0.0"}]),
        fix="gateway.address: 127.0.0.1",
    ),
    Broken(
        rule="no-plain-secrets",
        target="blue-api-1",
        change=put(envs=["MAIL_PASSWORD=hunter2"]),
        fix="name it in app.api.secrets",
    ),
    Broken(
        rule="no-plain-secrets",
        target="blue-api-1",
        change=put(envs=["DATABASE_URL=postgresql://app:hunter2@database/app"]),
        fix="name it in app.api.secrets",
    ),
]

ON_KUBERNETES = [
    Broken(rule="no-latest", target="web-blue", change=into(container, image="127.0.0.1:5005/web"), fix="make images"),
    Broken(rule="no-latest", target="cache", change=into(container, image="redis:latest"), fix="name the version"),
    Broken(
        rule="no-latest",
        target="Cluster/database-ha",
        change=into(spec, imageName="ghcr.io/cloudnative-pg/postgresql:latest"),
        fix="name the version",
    ),
    Broken(
        rule="no-latest",
        target="blue-api-migrate",
        change=lambda props: pod(props)["initContainers"][0].update(image="python"),
        fix="name the version",
    ),
    Broken(
        rule="known-registries",
        target="cache",
        change=into(container, image="quay.io/x/redis:7"),
        fix="policy/settings.py",
    ),
    Broken(
        rule="known-registries",
        target="cache",
        change=into(container, image="registry.test.evil.example/redis:7"),
        fix="policy/settings.py",
    ),
    Broken(rule="restricted", target="api-blue", change=into(pod, hostNetwork=True), fix="take it out"),
    Broken(
        rule="restricted",
        target="api-blue",
        change=into(pod, volumes=[{"name": "node", "hostPath": {"path": "/"}}]),
        fix="persistentVolumeClaim or an emptyDir",
    ),
    Broken(
        rule="restricted",
        target="api-blue",
        change=into(pod, securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
        fix="take it out",
    ),
    Broken(rule="restricted", target="api-blue", change=into(context, privileged=True), fix="privileged: false"),
    Broken(
        rule="restricted",
        target="cache",
        change=lambda props: context(props).pop("allowPrivilegeEscalation"),
        fix="allowPrivilegeEscalation: false",
    ),
    Broken(
        rule="restricted", target="blue-smoke", change=into(context, capabilities={}), fix="capabilities: {drop: [ALL]}"
    ),
    Broken(rule="restricted", target="worker-blue", change=into(context, runAsUser=0), fix="runAsUser above 0"),
    Broken(rule="restricted", target="worker-blue", change=into(context, runAsNonRoot=False), fix="runAsNonRoot: true"),
    Broken(
        rule="restricted",
        target="web-blue",
        change=into(context, seccompProfile={"type": "Unconfined"}),
        fix="RuntimeDefault",
    ),
    Broken(rule="restricted", target="web-blue", change=into(context, procMount="Unmasked"), fix="take out procMount"),
    Broken(
        rule="restricted",
        target="web-blue",
        change=into(container, ports=[{"containerPort": 8080, "hostPort": 80}]),
        fix="take out hostPort",
    ),
    Broken(
        rule="restricted",
        target="board-prod",
        change=lambda props: props["metadata"]["labels"].pop("pod-security.kubernetes.io/enforce"),
        fix="give it the label pod-security.kubernetes.io/enforce: restricted",
    ),
    Broken(rule="limits", target="cache", change=into(container, resources={}), fix="environment.tiers.cache.cpu"),
    Broken(
        rule="limits",
        target="blue-api-migrate",
        change=lambda props: pod(props)["initContainers"][0]["resources"]["limits"].pop("memory"),
        fix="environment.tiers.api.cpu and .memory",
    ),
    Broken(
        rule="limits",
        target="Cluster/database-ha",
        change=into(spec, resources={"limits": {"cpu": "1"}}),
        fix="environment.tiers.database.cpu and .memory",
    ),
    Broken(
        rule="limits",
        target="Pooler/database-pooler",
        change=into(container, resources={}),
        fix="environment.tiers.database.cpu and .memory",
    ),
    Broken(
        rule="private-data", target="Service/cache-1", change=into(spec, type="NodePort"), fix="make it a ClusterIP"
    ),
    Broken(
        rule="private-data",
        target="Service/cache",
        change=into(spec, externalIPs=["192.0.2.1"]),
        fix="without externalIPs",
    ),
    Broken(
        rule="private-data",
        target="HTTPRoute/board",
        change=lambda props: spec(props)["rules"][0].update(backendRefs=[{"name": "database-pooler", "port": 5432}]),
        fix="take out that backend",
    ),
    *(
        Broken(
            rule="private-data",
            target=f"NetworkPolicy/{name}",
            change=lambda props: spec(props)["ingress"][0].update({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}),
            fix="name the pods",
        )
        for name in ("cache", "database-ha")
    ),
    Broken(
        rule="private-data",
        target="NetworkPolicy/deny-all",
        change=into(spec, ingress=[{"ports": []}]),
        fix="name the pods",
    ),
    Broken(
        rule="tls",
        target="HTTPRoute/board",
        change=lambda props: spec(props)["parentRefs"][0].update(sectionName="http"),
        fix="environment.kubernetes.gateway.listener",
    ),
    Broken(
        rule="tls",
        target="HTTPRoute/board-blue",
        change=lambda props: spec(props)["parentRefs"][0].pop("sectionName"),
        fix="environment.kubernetes.gateway.listener",
    ),
    Broken(
        rule="tls",
        target="Gateway/own",
        change=lambda props: spec(props)["listeners"][0].update(protocol="HTTP"),
        fix="give gateway.create a certificate",
    ),
    Broken(
        rule="no-plain-secrets",
        target="api-blue",
        change=into(container, env=[{"name": "STRIPE_API_KEY", "value": "sk_live_hunter2"}]),
        fix="name it in app.api.secrets",
    ),
    Broken(
        rule="replicas", target="worker-blue", change=into(spec, replicas=1), fix="environment.tiers.worker.replicas: 2"
    ),
    Broken(
        rule="replicas",
        target="HorizontalPodAutoscaler/api-blue",
        change=into(spec, minReplicas=1),
        fix="environment.tiers.api.replicas: 2",
    ),
    Broken(
        rule="replicas",
        target="web-blue",
        change=lambda props: pod(props).pop("topologySpreadConstraints"),
        fix="topologySpreadConstraints over kubernetes.io/hostname",
    ),
]


@cache
def cluster() -> Deployment:
    """Deploy prod with its own namespace, for one object of each kind."""
    env = environment("prod")
    env["kubernetes"]["namespace"]["create"] = True
    return deploy(env=env, stack="prod")


@cache
def own_gateway() -> Deployment:
    env = environment("prod")
    gateway = {"name": "own", "namespace": "board-prod", "inside": "https://traefik.gateway:8443", "pods_in": "gateway"}
    env["kubernetes"]["gateway"] = gateway | {"create": {"gateway_class": "traefik", "certificate": "tls"}}
    return deploy(env=env, stack="prod")


WORKLOADS = ("Deployment", "StatefulSet", "Job", "Namespace", "Container", "RemoteImage", "Network", "Volume")


def find(deployed: Deployment, reference: str, stack: str = "prod") -> Resource:
    """Return the object of that name: a workload, unless a kind is named too."""
    kind, _, name = reference.rpartition("/")
    kinds = (kind,) if kind and not kind.startswith("image-") else WORKLOADS
    [one] = [entry for entry in deployed if entry.name in (name, reference) and entry.kind in kinds]
    return as_seen(one, stack)


def broken(case: Broken, stack: str = "prod") -> Resource:
    deployed = (
        single_server() if case in ON_DOCKER else own_gateway() if case.target.startswith("Gateway") else cluster()
    )
    before = find(deployed, case.target, stack)
    assert problems(BY_NAME[case.rule], [before]) == []
    props = copy.deepcopy(dict(before.props))
    case.change(props)
    return replace(before, props=props)


@pytest.mark.parametrize(
    "case", [*ON_DOCKER, *ON_KUBERNETES], ids=lambda case: f"{case.rule}-{case.target}-{case.fix[:30]}"
)
def test_change_that_breaks_a_rule_is_refused_with_the_fix(case: Broken) -> None:
    [problem] = problems(BY_NAME[case.rule], [broken(case)])
    wrong, _, fix = problem.partition("; ")
    assert wrong
    assert case.fix in fix
    assert "hunter2" not in problem
    on_a_laptop = problems(BY_NAME[case.rule], [broken(case, "dev")])
    assert bool(on_a_laptop) == (case.rule not in STRICT and "reload" not in case.fix)
    assert problems(BY_NAME[case.rule], [replace(broken(case), kept=True)]) == []


def test_every_rule_has_a_refused_change_on_each_platform() -> None:
    one_by_one = {rule.name for rule in RULES} - {"protected-data", "replicas-on-docker"}
    assert {case.rule for case in ON_DOCKER} == one_by_one - {"replicas"}  # On Docker this rule is replicas-on-docker.
    assert {case.rule for case in ON_KUBERNETES} == one_by_one


@pytest.mark.parametrize(
    ("name", "deployed"),
    [
        ("database-ha", cluster),
        ("cache-data", cluster),
        ("board-prod", cluster),
        ("database-data", single_server),
        ("cache-data", single_server),
    ],
)
def test_unprotected_data_is_refused(name: str, deployed: Callable[[], Deployment]) -> None:
    holds = ("Cluster", "Namespace", "PersistentVolumeClaim", "Volume")
    [one] = [as_seen(entry, "prod") for entry in deployed() if entry.name == name and entry.kind in holds]
    assert problems(BY_NAME["protected-data"], [one]) == []
    [problem] = problems(BY_NAME["protected-data"], [replace(one, protect=False)])
    assert "set environment.protect_data: true" in problem
    assert problems(BY_NAME["protected-data"], [replace(one, protect=False, stack="dev")]) == []


def test_tier_with_one_container_is_refused() -> None:
    one_each = [resource for resource in resources(single_server(), "prod") if resource.name != "blue-worker-2"]
    rule = BY_NAME["replicas-on-docker"]
    assert problems(rule, one_each) == ["there is one worker; set environment.tiers.worker.replicas: 2 or more"]
    assert problems(rule, [replace(entry, stack="dev") for entry in one_each]) == []


# ---------------------------------------------------------------------- settings and unknown values


@pytest.mark.parametrize(
    ("image", "trusted"),
    [
        ("registry.test/web:1", True),
        ("registry.test/team/web:1", True),
        ("redis:7", True),
        ("docker.io/library/redis@sha256:00", True),
        ("someone/redis:7", False),
        ("registry.test:5000/web:1", False),
        ("localhost/web:1", False),
        ("ghcr.io/team/one:1", True),
        ("ghcr.io/team/one@sha256:00", True),
        ("ghcr.io/team/one-more:1", False),
    ],
)
def test_image_is_trusted_by_its_registry(image: str, trusted: bool) -> None:
    one = Resource(type="docker:index/remoteImage:RemoteImage", name="image", stack="prod", props={"name": image})
    assert bool(problems(BY_NAME["known-registries"], [one])) != trusted


@pytest.mark.parametrize(
    ("stack", "strict"), [("dev", False), ("dev-anna", False), ("staging", False), ("prod", True), ("devil", True)]
)
def test_unlisted_stack_gets_the_strict_rules(stack: str, strict: bool) -> None:
    assert SETTINGS.strict(stack) == strict


@pytest.mark.parametrize(
    "setting", ["DATABASE_PASSWORD_FILE=/run/secrets/x", "TOKEN_TTL=60", "PASSWORD=", "CACHE_KEY=a"]
)
def test_variable_that_only_sounds_like_a_secret_passes(setting: str) -> None:
    one = find(single_server(), "blue-api-1")
    assert problems(BY_NAME["no-plain-secrets"], [replace(one, props={**one.props, "envs": [setting]})]) == []


class _Seen:
    """A resource as pulumi-policy passes it to a policy."""

    def __init__(self, props: dict[str, Any], ignore: list[str]) -> None:
        self.resource_type, self.name = "docker:index/container:Container", "gateway"
        self.urn = "urn:pulumi:prod::board::tiers:switch:Gateway$docker:index/container:Container::gateway"
        self.props = unknown_checking_proxy(props)
        self.opts = self
        self.protect, self.ignore_changes = False, ignore


@pytest.mark.parametrize(
    ("image", "ignore", "count"),
    [("haproxy", [], 1), (UNKNOWN_STRING_VALUE, [], 0), ("haproxy", ["*"], 0), ("haproxy", ["memory"], 1)],
)
def test_value_unknown_in_a_preview_is_not_judged(image: str, ignore: list[str], count: int) -> None:
    reported: list[str] = []
    resource: Any = _Seen({"image": image}, ignore)
    judge(BY_NAME["no-latest"], [seen(resource)], lambda message, urn=None: reported.append(f"{message} {urn}"))
    assert len(reported) == count
    assert all(entry.startswith("haproxy changes with") and "urn:pulumi:prod::" in entry for entry in reported)


def test_policy_page_lists_every_rule() -> None:
    page = (ROOT / "docs/policy.md").read_text()
    for rule in RULES:
        assert f"| `{rule.name}` |" in page, rule.name
        assert (f"| `{rule.name}` | strict |" in page) == rule.strict


def test_policy_pack_prints_its_port_without_buffering() -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pack = subprocess.Popen(
        [sys.executable, ROOT / "policy", "127.0.0.1:1"], cwd=ROOT / "policy", env=buffered, stdout=subprocess.PIPE
    )
    try:
        assert pack.stdout
        assert select.select([pack.stdout], [], [], 60)[0], "the engine waits for the port of the pack"
        assert int(pack.stdout.readline())
    finally:
        pack.kill()
        pack.communicate()
