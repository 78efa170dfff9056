"""Tests of the policy rules: each object of the program passes, and a change that breaks a rule is refused with a fix."""

import copy
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

from policy.__main__ import report_problems, to_resource
from policy.model import Resource, Rule, Settings
from policy.rules import RULES
from policy.settings import SETTINGS

from .program import ROOT, SECRETS, Deployment, Registered, deploy, environment, first_release, second_release

# Trust two more registries: registry.test has the images of `program.environment`; a test of registries uses ghcr.io.
TRUSTING_SETTINGS = replace(SETTINGS, registries=(*SETTINGS.registries, "registry.test", "ghcr.io/team/one"))
BY_NAME = {rule.name: rule for rule in RULES}
STRICT = {rule.name for rule in RULES if rule.strict}


@cache
def single_server() -> Deployment:
    """Deploy prod on one Docker engine."""
    size = {"replicas": 2}
    tiers = {"web": size, "api": size, "worker": size}
    return deploy(env=environment("dev") | {"reload": False, "protect_data": True, "tiers": tiers}, stack="prod")


@cache
def single_server_with_backup() -> Deployment:
    """Deploy prod on one Docker engine, with backups in a folder of the host."""
    size = {"replicas": 2}
    tiers = {"web": size, "api": size, "worker": size, "database": {"backup": {"target": {"directory": "/srv"}}}}
    settings = environment("dev") | {"reload": False, "protect_data": True, "tiers": tiers}
    return deploy(env=settings, stack="prod", secrets=SECRETS | {"backup-key": "the-key-of-backups"})


def resources(deployed: Deployment, stack: str) -> list[Resource]:
    return [as_resource(entry, stack) for entry in deployed]


def as_resource(entry: Registered, stack: str) -> Resource:
    is_kept = entry.ignores == ("*",)
    return Resource(
        type=entry.type,
        name=entry.name,
        stack=stack,
        props=entry.inputs,
        protect=entry.protect,
        kept=is_kept,
        urn=entry.urn,
    )


def problems(rule: Rule, resources: Sequence[Resource], settings: Settings = TRUSTING_SETTINGS) -> list[str]:
    return [problem for _, problem in rule.problems(resources, settings)]


# ---------------------------------------------------------------------- accepted objects


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("stack", ["dev", "staging", "prod", "single-server", "backed-up"])
def test_every_object_of_the_program_passes_every_policy_rule(stack: str, rule: Rule) -> None:
    single_servers = {"single-server": single_server, "backed-up": single_server_with_backup}
    releases = [single_servers[stack]()] if stack in single_servers else [first_release(stack), second_release(stack)]
    for release in releases:
        objects = resources(release, stack)
        assert len(objects) > 30
        assert problems(rule, objects) == []


# ---------------------------------------------------------------------- refused changes


@dataclass(frozen=True, kw_only=True)
class Violation:
    """Forbidden change to an object of prod. The policy rule `rule` must refuse the change with an error that contains `fix`."""

    rule: str
    target: str
    change: Callable[[dict[str, Any]], object]
    fix: str


def container(props: dict[str, Any]) -> dict[str, Any]:
    return props["spec"]["template"]["spec"]["containers"][0]


def context(props: dict[str, Any]) -> dict[str, Any]:
    return container(props)["securityContext"]


def set_inputs(**more: Any) -> Callable[[dict[str, Any]], object]:
    return lambda props: props.update(more)


def set_in(target: Callable[[dict[str, Any]], dict[str, Any]], **more: Any) -> Callable[[dict[str, Any]], object]:
    return lambda props: target(props).update(more)


def spec(props: dict[str, Any]) -> dict[str, Any]:
    return props["spec"]


def pod(props: dict[str, Any]) -> dict[str, Any]:
    return props["spec"]["template"]["spec"]


def remove_inputs(*keys: str) -> Callable[[dict[str, Any]], object]:
    return lambda props: [props.pop(key, None) for key in keys]


ON_DOCKER = [
    Violation(
        rule="no-latest", target="image-haproxy:2.6-bookworm", change=set_inputs(name="haproxy"), fix="name the version"
    ),
    Violation(
        rule="no-latest", target="gateway", change=set_inputs(image="host:5000/haproxy:latest"), fix="name the version"
    ),
    Violation(
        rule="known-registries",
        target="image-redis:7-bookworm",
        change=set_inputs(name="quay.io/x/redis:7"),
        fix="settings.py",
    ),
    Violation(
        rule="known-registries", target="gateway", change=set_inputs(image="someone/haproxy:2.6"), fix="settings.py"
    ),
    Violation(rule="restricted", target="blue-api-1", change=set_inputs(user="0:0"), fix="app.api.user"),
    Violation(rule="restricted", target="blue-api-1", change=remove_inputs("user"), fix="app.api.user"),
    Violation(rule="restricted", target="blue-api-1", change=set_inputs(privileged=True), fix="remove privileged"),
    Violation(rule="restricted", target="blue-api-1", change=set_inputs(securityOpts=[]), fix="no-new-privileges:true"),
    Violation(
        rule="restricted",
        target="blue-api-1",
        change=set_inputs(securityOpts=["no-new-privileges:true", "seccomp=unconfined"]),
        fix="remove unconfined",
    ),
    Violation(rule="restricted", target="blue-api-1", change=remove_inputs("capabilities"), fix="drops=[ALL]"),
    Violation(
        rule="restricted",
        target="blue-api-1",
        change=set_inputs(capabilities={"drops": ["ALL"], "adds": ["SYS_ADMIN"]}),
        fix="drops=[ALL]",
    ),
    Violation(rule="restricted", target="blue-smoke", change=set_inputs(networkMode="host"), fix="remove networkMode"),
    Violation(
        rule="restricted",
        target="blue-smoke",
        change=set_inputs(devices=[{"hostPath": "/dev/sda"}]),
        fix="remove devices",
    ),
    Violation(
        rule="restricted",
        target="blue-api-1",
        change=set_inputs(mounts=[{"type": "bind", "source": "/srv/app", "target": "/app", "readOnly": True}]),
        fix="environment.reload: false",
    ),
    Violation(
        rule="restricted",
        target="gateway",
        change=set_inputs(volumes=[{"hostPath": "/var/run/docker.sock", "containerPath": "/sock", "readOnly": True}]),
        fix="copy it into the image or a volume",
    ),
    Violation(
        rule="limits",
        target="database-1",
        change=set_inputs(memory=0),
        fix="environment.tiers.database.cpu and .memory",
    ),
    Violation(
        rule="limits", target="blue-web-1", change=remove_inputs("cpus"), fix="environment.tiers.web.cpu and .memory"
    ),
    Violation(
        rule="private-data",
        target="database-1",
        change=set_inputs(ports=[{"internal": 5432}]),
        fix="remove ports",
    ),
    Violation(rule="private-data", target="cache-1", change=set_inputs(publishAllPorts=True), fix="remove ports"),
    Violation(
        rule="private-data",
        target="cache-1",
        change=set_inputs(networksAdvanced=[{"name": "board-prod-outside"}]),
        fix="use only the data network",
    ),
    Violation(rule="private-data", target="data", change=set_inputs(internal=False), fix="set internal: true"),
    Violation(
        rule="tls",
        target="gateway",
        change=set_inputs(ports=[{"external": 80, "ip": "0.0.0.0"}]),
        fix="gateway.address: 127.0.0.1",
    ),
    Violation(
        rule="no-plain-secrets",
        target="blue-api-1",
        change=set_inputs(envs=["MAIL_PASSWORD=hunter2"]),
        fix="in app.api.secret_env to `${secrets.NAME}`",
    ),
    Violation(
        rule="no-plain-secrets",
        target="blue-api-1",
        change=set_inputs(envs=["DATABASE_URL=postgresql://app:hunter2@database/app"]),
        fix="in app.api.secret_env to `${secrets.NAME}`",
    ),
]

ON_KUBERNETES = [
    Violation(
        rule="no-latest", target="web-blue", change=set_in(container, image="127.0.0.1:5005/web"), fix="make images"
    ),
    Violation(rule="no-latest", target="cache", change=set_in(container, image="redis:latest"), fix="name the version"),
    Violation(
        rule="no-latest",
        target="Cluster/database-ha",
        change=set_in(spec, imageName="ghcr.io/cloudnative-pg/postgresql:latest"),
        fix="name the version",
    ),
    Violation(
        rule="no-latest",
        target="blue-api-migrate",
        change=lambda props: pod(props)["initContainers"][0].update(image="python"),
        fix="name the version",
    ),
    Violation(
        rule="known-registries",
        target="cache",
        change=set_in(container, image="quay.io/x/redis:7"),
        fix="policy/settings.py",
    ),
    Violation(
        rule="known-registries",
        target="cache",
        change=set_in(container, image="registry.test.evil.example/redis:7"),
        fix="policy/settings.py",
    ),
    Violation(rule="restricted", target="api-blue", change=set_in(pod, hostNetwork=True), fix="remove hostNetwork"),
    Violation(
        rule="restricted",
        target="api-blue",
        change=set_in(pod, volumes=[{"name": "node", "hostPath": {"path": "/"}}]),
        fix="persistentVolumeClaim or an emptyDir",
    ),
    Violation(
        rule="restricted",
        target="api-blue",
        change=set_in(pod, securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
        fix="remove this sysctl",
    ),
    Violation(rule="restricted", target="api-blue", change=set_in(context, privileged=True), fix="privileged: false"),
    Violation(
        rule="restricted",
        target="cache",
        change=lambda props: context(props).pop("allowPrivilegeEscalation"),
        fix="allowPrivilegeEscalation: false",
    ),
    Violation(
        rule="restricted",
        target="blue-smoke",
        change=set_in(context, capabilities={}),
        fix="capabilities: {drop: [ALL]}",
    ),
    Violation(rule="restricted", target="worker-blue", change=set_in(context, runAsUser=0), fix="runAsUser above 0"),
    Violation(
        rule="restricted", target="worker-blue", change=set_in(context, runAsNonRoot=False), fix="runAsNonRoot: true"
    ),
    Violation(
        rule="restricted",
        target="web-blue",
        change=set_in(context, seccompProfile={"type": "Unconfined"}),
        fix="RuntimeDefault",
    ),
    Violation(
        rule="restricted", target="web-blue", change=set_in(context, procMount="Unmasked"), fix="remove procMount"
    ),
    Violation(
        rule="restricted",
        target="web-blue",
        change=set_in(container, ports=[{"containerPort": 8080, "hostPort": 80}]),
        fix="remove hostPort",
    ),
    Violation(
        rule="restricted",
        target="board-prod",
        change=lambda props: props["metadata"]["labels"].pop("pod-security.kubernetes.io/enforce"),
        fix="give the namespace the label pod-security.kubernetes.io/enforce: restricted",
    ),
    Violation(rule="limits", target="cache", change=set_in(container, resources={}), fix="environment.tiers.cache.cpu"),
    Violation(
        rule="limits",
        target="blue-api-migrate",
        change=lambda props: pod(props)["initContainers"][0]["resources"]["limits"].pop("memory"),
        fix="environment.tiers.api.cpu and .memory",
    ),
    Violation(
        rule="limits",
        target="Cluster/database-ha",
        change=set_in(spec, resources={"limits": {"cpu": "1"}}),
        fix="environment.tiers.database.cpu and .memory",
    ),
    Violation(
        rule="limits",
        target="Pooler/database-pooler",
        change=set_in(container, resources={}),
        fix="environment.tiers.database.cpu and .memory",
    ),
    Violation(
        rule="private-data", target="Service/cache-1", change=set_in(spec, type="NodePort"), fix="use type ClusterIP"
    ),
    Violation(
        rule="private-data",
        target="Service/cache",
        change=set_in(spec, externalIPs=["192.0.2.1"]),
        fix="without externalIPs",
    ),
    Violation(
        rule="private-data",
        target="HTTPRoute/board",
        change=lambda props: spec(props)["rules"][0].update(backendRefs=[{"name": "database-pooler", "port": 5432}]),
        fix="remove this backend",
    ),
    *(
        Violation(
            rule="private-data",
            target=f"NetworkPolicy/{name}",
            change=lambda props: spec(props)["ingress"][0].update({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}),
            fix="select the allowed pods",
        )
        for name in ("cache", "database-ha")
    ),
    Violation(
        rule="private-data",
        target="NetworkPolicy/deny-all",
        change=set_in(spec, ingress=[{"ports": []}]),
        fix="select the allowed pods",
    ),
    Violation(
        rule="tls",
        target="HTTPRoute/board",
        change=lambda props: spec(props)["parentRefs"][0].update(sectionName="http"),
        fix="environment.kubernetes.gateway.listener",
    ),
    Violation(
        rule="tls",
        target="HTTPRoute/board-blue",
        change=lambda props: spec(props)["parentRefs"][0].pop("sectionName"),
        fix="environment.kubernetes.gateway.listener",
    ),
    Violation(
        rule="tls",
        target="Gateway/own",
        change=lambda props: spec(props)["listeners"][0].update(protocol="HTTP"),
        fix="set gateway.create.certificate",
    ),
    Violation(
        rule="no-plain-secrets",
        target="api-blue",
        change=set_in(container, env=[{"name": "STRIPE_API_KEY", "value": "sk_live_hunter2"}]),
        fix="in app.api.secret_env to `${secrets.NAME}`",
    ),
    Violation(
        rule="replicas",
        target="worker-blue",
        change=set_in(spec, replicas=1),
        fix="environment.tiers.worker.replicas: 2",
    ),
    Violation(
        rule="replicas",
        target="HorizontalPodAutoscaler/api-blue",
        change=set_in(spec, minReplicas=1),
        fix="environment.tiers.api.replicas: 2",
    ),
    Violation(
        rule="replicas",
        target="web-blue",
        change=lambda props: pod(props).pop("topologySpreadConstraints"),
        fix="topologySpreadConstraints for kubernetes.io/hostname",
    ),
]


@cache
def cluster() -> Deployment:
    """Deploy prod on Kubernetes, including its namespace."""
    env = environment("prod")
    env["kubernetes"]["namespace"]["create"] = True
    return deploy(env=env, stack="prod")


@cache
def cluster_with_gateway() -> Deployment:
    env = environment("prod")
    gateway = {"name": "own", "namespace": "board-prod", "inside": "https://traefik.gateway:8443", "pods_in": "gateway"}
    env["kubernetes"]["gateway"] = gateway | {"create": {"gateway_class": "traefik", "certificate": "tls"}}
    return deploy(env=env, stack="prod")


WORKLOADS = ("Deployment", "StatefulSet", "Job", "Namespace", "Container", "RemoteImage", "Network", "Volume")


def find(deployed: Deployment, reference: str, stack: str = "prod") -> Resource:
    """Return the object that a reference names. A reference is `NAME` for a workload, or `KIND/NAME` for any object."""
    kind, _, name = reference.rpartition("/")
    kinds = (kind,) if kind and not kind.startswith("image-") else WORKLOADS
    [resource] = [entry for entry in deployed if entry.name in (name, reference) and entry.kind in kinds]
    return as_resource(resource, stack)


def violating_resource(case: Violation, stack: str = "prod") -> Resource:
    deployed = (
        single_server()
        if case in ON_DOCKER
        else cluster_with_gateway()
        if case.target.startswith("Gateway")
        else cluster()
    )
    before = find(deployed, case.target, stack)
    assert problems(BY_NAME[case.rule], [before]) == []
    props = copy.deepcopy(dict(before.props))
    case.change(props)
    return replace(before, props=props)


@pytest.mark.parametrize(
    "case", [*ON_DOCKER, *ON_KUBERNETES], ids=lambda case: f"{case.rule}-{case.target}-{case.fix[:30]}"
)
def test_change_that_breaks_a_policy_rule_is_refused_with_the_fix(case: Violation) -> None:
    [problem] = problems(BY_NAME[case.rule], [violating_resource(case)])
    wrong, _, fix = problem.partition("; ")
    assert wrong
    assert case.fix in fix
    assert "hunter2" not in problem
    on_a_laptop = problems(BY_NAME[case.rule], [violating_resource(case, "dev")])
    assert bool(on_a_laptop) == (case.rule not in STRICT and "reload" not in case.fix)
    assert problems(BY_NAME[case.rule], [replace(violating_resource(case), kept=True)]) == []


def test_every_policy_rule_is_tested_with_a_refused_change_on_each_platform() -> None:
    rules_of_one_object = {rule.name for rule in RULES} - {"protected-data", "replicas-on-docker"}
    assert {case.rule for case in ON_DOCKER} == rules_of_one_object - {
        "replicas"
    }  # On Docker the rule replicas-on-docker replaces the rule replicas.
    assert {case.rule for case in ON_KUBERNETES} == rules_of_one_object


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
def test_policy_refuses_unprotected_data_stores_in_prod(name: str, deployed: Callable[[], Deployment]) -> None:
    kinds = ("Cluster", "Namespace", "PersistentVolumeClaim", "Volume")
    [resource] = [as_resource(entry, "prod") for entry in deployed() if entry.name == name and entry.kind in kinds]
    assert problems(BY_NAME["protected-data"], [resource]) == []
    [problem] = problems(BY_NAME["protected-data"], [replace(resource, protect=False)])
    assert "set environment.protect_data: true" in problem
    assert problems(BY_NAME["protected-data"], [replace(resource, protect=False, stack="dev")]) == []


def test_policy_refuses_a_tier_with_one_container() -> None:
    one_worker = [resource for resource in resources(single_server(), "prod") if resource.name != "blue-worker-2"]
    rule = BY_NAME["replicas-on-docker"]
    assert problems(rule, one_worker) == [
        "worker has a single replica; set environment.tiers.worker.replicas: 2 or more"
    ]
    assert problems(rule, [replace(entry, stack="dev") for entry in one_worker]) == []


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
def test_policy_trusts_only_images_of_the_listed_registries(image: str, trusted: bool) -> None:
    resource = Resource(type="docker:index/remoteImage:RemoteImage", name="image", stack="prod", props={"name": image})
    assert bool(problems(BY_NAME["known-registries"], [resource])) != trusted


@pytest.mark.parametrize("image", ["axllent/mailpit:v1", "quay.io/x/y/redis:7", "host:5000/redis@sha256:00"])
def test_error_of_an_untrusted_image_names_the_entry_that_makes_the_image_trusted(image: str) -> None:
    resource = Resource(type="docker:index/remoteImage:RemoteImage", name="image", stack="prod", props={"name": image})
    [problem] = problems(BY_NAME["known-registries"], [resource])
    [entry] = re.findall(r'add "(.+)" to `registries`', problem)
    assert not problems(BY_NAME["known-registries"], [resource], replace(SETTINGS, registries=(entry,)))


@pytest.mark.parametrize(
    ("stack", "strict"), [("dev", False), ("dev-anna", False), ("staging", False), ("prod", True), ("devil", True)]
)
def test_strict_policy_rules_apply_to_every_stack_that_is_not_listed_as_relaxed(stack: str, strict: bool) -> None:
    assert SETTINGS.strict(stack) == strict


@pytest.mark.parametrize(
    "setting", ["DATABASE_PASSWORD_FILE=/run/secrets/x", "TOKEN_TTL=60", "PASSWORD=", "CACHE_KEY=a"]
)
def test_policy_accepts_a_harmless_variable_with_a_name_like_a_secret(setting: str) -> None:
    resource = find(single_server(), "blue-api-1")
    assert problems(BY_NAME["no-plain-secrets"], [replace(resource, props={**resource.props, "envs": [setting]})]) == []


class _PolicyResource:
    """Mock of the resource object that a policy gets from pulumi-policy."""

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
def test_policy_does_not_check_values_that_are_unknown_or_ignored_in_a_preview(
    image: str, ignore: list[str], count: int
) -> None:
    reported: list[str] = []
    resource: Any = _PolicyResource({"image": image}, ignore)
    report_problems(
        BY_NAME["no-latest"], [to_resource(resource)], lambda message, urn=None: reported.append(f"{message} {urn}")
    )
    assert len(reported) == count
    assert all(entry.startswith("haproxy has no fixed version") and "urn:pulumi:prod::" in entry for entry in reported)


def test_policy_document_lists_every_policy_rule() -> None:
    page = (ROOT / "docs/policy.md").read_text()
    for rule in RULES:
        assert f"| `{rule.name}` |" in page, rule.name
        assert (f"| `{rule.name}` | strict |" in page) == rule.strict


def test_policy_pack_prints_its_port_without_buffering() -> None:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pack = subprocess.Popen(
        [sys.executable, ROOT / "policy", "127.0.0.1:1"], cwd=ROOT / "policy", env=variables, stdout=subprocess.PIPE
    )
    try:
        assert pack.stdout
        assert select.select([pack.stdout], [], [], 60)[0], "the pack printed no port, so the engine would wait forever"
        assert int(pack.stdout.readline())
    finally:
        pack.kill()
        pack.communicate()
