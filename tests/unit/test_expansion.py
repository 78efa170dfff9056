"""Texts of containers arrive on Kubernetes as on Docker, though the kubelet replaces `$(NAME)` and `$$`."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import sentinel
from components.platforms import cluster
from components.platforms.docker import TOOLBOX
from components.platforms.expansion import literal

from .program import CONTAINER, Deployment, deploy, environment, first

TEXTS = ["pa$$word", "$(A)", "$$(A)", "$A", "$", "$$", "a$", "$(SLOT)", "$(", "$()", "$(KUBERNETES_SERVICE_HOST)", "5$ü", "$€ $(date)",
         "DO $$ BEGIN END $$", "echo $$ $(SLOT) $(unknown) ${A}", "$(a $(SLOT)", "100%"]  # fmt: skip


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace as the kubelet does (Kubernetes 1.34, expansion.Expand), byte by byte: a byte above 127 becomes its own character."""
    source, result, at = text.encode(), b"", 0
    while at < len(source):
        if source[at : at + 1] != b"$" or at + 1 == len(source):
            result += source[at : at + 1]
            at += 1
        elif source[at + 1 : at + 2] == b"$":
            result += b"$"
            at += 2
        elif source[at + 1 : at + 2] != b"(":
            result += b"$" + chr(source[at + 1]).encode()
            at += 2
        elif (end := source.find(b")", at)) < 0:
            result += b"$("
            at += 2
        else:
            name = source[at + 2 : end].decode(errors="surrogateescape")
            result += variables.get(name, f"$({name})").encode(errors="surrogateescape")
            at = end + 1
    return result.decode(errors="replace")


def test_expand_replaces_as_the_kubelet_does() -> None:
    """Cases of Kubernetes' own documentation and test (expand_test.go)."""
    variables = {"VAR_A": "A", "VAR_EMPTY": ""}
    cases = {"$(VAR_A)": "A", "$$(VAR_A)": "$(VAR_A)", "$$$(VAR_A)": "$A", "$(NO)": "$(NO)", "$(VAR_EMPTY)x": "x", "$": "$", "$VAR_A": "$VAR_A",
             "$$$$(VAR_A": "$$(VAR_A", "f000-$$VAR_A": "f000-$VAR_A", "$?_$#": "$?_$#", "$(": "$("}  # fmt: skip
    assert {text: expand(text, variables) for text in cases} == cases


ANY = st.text() | st.text("$()A_ab ü", max_size=12) | st.sampled_from(TEXTS)


@given(ANY, st.dictionaries(st.sampled_from(["A", "A_", "a", "", "ü", "SLOT"]), st.just("REPLACED")))
def test_any_text_arrives_as_written(text: str, variables: Mapping[str, str]) -> None:
    added = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "A_A": "REPLACED"}
    assert expand(literal(text, variables), {**added, **variables}) == text


@pytest.mark.parametrize("text", [sentinel.SCRIPT, sentinel.quoting(), TOOLBOX, "sh -c 'echo $(date) $HOME'", "100$"])
def test_text_that_the_kubelet_leaves_alone_keeps_its_bytes(text: str) -> None:
    assert literal(text, ("SLOT", "MEMBER")) == text


# ---------------------------------------------------------------------- whole applications

APP: dict[str, Any] = {
    "name": "shop",
    "version": "1.0.0",
    "checks": [{"path": "/", "contains": "costs $$5 $(SLOT)"}],
    "api": {
        "image": "x:1",
        "port": 8000,
        "env": {f"A{number}": text for number, text in enumerate(TEXTS)} | {"A": "value"},
        "command": ["sh", "-c", *TEXTS],
        "migrate": {"command": ["psql", "-c", *TEXTS]},
        "tasks": {"other": {"command": ["echo", *TEXTS]}},
    },
    "worker": {"image": "x:1", "command": TEXTS, "alive": ["test", *TEXTS]},
}
GATEWAY = {"name": "g", "namespace": "gw", "inside": "http://g.gw"}
CLUSTER = {
    "platform": "kubernetes",
    "kubernetes": {"context": "lab", "url": "http://shop.localhost", "gateway": GATEWAY},
}


def pods(deployment: Deployment) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the pod of each object that creates pods."""
    for entry in deployment.objects:
        spec = entry.inputs.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
        if "containers" in template.get("spec", {}):
            yield entry.name, template["spec"]


def arriving(deployment: Deployment) -> dict[str, tuple[list[str], dict[str, str], list[str]]]:
    """Return command, variables and probe of each container, as the kubelet hands them on."""
    result: dict[str, tuple[list[str], dict[str, str], list[str]]] = {}
    for name, pod in pods(deployment):
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            variables: dict[str, str] = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
            for variable in container.get("env", ()):
                variables[variable["name"]] = expand(variable["value"], variables)
            probe = container.get("livenessProbe", {}).get("exec", {}).get("command", [])
            words = [*container.get("command", ()), *container.get("args", ())]
            result[f"{name}/{container['name']}"] = (
                [expand(word, variables) for word in words],
                variables,
                [expand(word, variables) for word in probe],
            )
    return result


def test_texts_are_the_same_on_both_platforms() -> None:
    settings = environment() | {"reload": False, "seed": False, "tiers": {}, "gateway": {"port": 8350}}
    on_docker = {entry.name: entry.inputs for entry in deploy(APP, settings, secrets={}).of_type(CONTAINER)}
    on_kubernetes = arriving(deploy(APP, CLUSTER, secrets={}))
    names = {"api-blue/api": "blue-api-1", "worker-blue/worker": "blue-worker-1", "blue-api-migrate/api": "blue-api-migrate",
             "blue-api-other/api": "blue-api-other"}  # fmt: skip
    for name, container_name in names.items():
        command, variables, probe = on_kubernetes[name]
        task = container_name.startswith("blue-api-") and not container_name.endswith("-1")
        assert command == on_docker[container_name]["command"][2 if task else 0 :]
        other = dict(variable.split("=", 1) for variable in on_docker[container_name]["envs"])
        differ = ("RELEASE", "PUBLIC_URL")
        assert {key: variables[key] for key in other if key not in differ} == {
            key: value for key, value in other.items() if key not in differ
        }
        if name.startswith("worker"):
            assert probe == on_docker[container_name]["healthcheck"]["tests"][1:] == ["test", *TEXTS]
    [smoke] = [command for name, (command, _, _) in on_kubernetes.items() if name.endswith("/smoke")]
    assert any("costs $$5 $(SLOT)" in word for word in smoke)


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_no_text_of_the_board_is_replaced_by_the_kubelet(stack: str) -> None:
    """No text of the program relies on the kubelet's replacement, and all texts keep the bytes they had before."""
    texts = [
        text
        for _, pod in pods(first(stack))
        for container in [*pod["containers"], *pod.get("initContainers", ())]
        for text in [*container.get("command", ()), *(variable["value"] for variable in container.get("env", ()))]
    ]
    assert texts
    assert all(expand(text, {"SLOT": "no", "RELEASE": "no", "CONFIG": "no"}) == text for text in texts)
    assert not any("$$" in text for text in texts)


def test_command_run_by_hand_arrives_as_written() -> None:
    from kubernetes import client

    container = client.V1Container(
        name="backup", env=[client.V1EnvVar(name="A", value="x")], command=["backup", "verify"]
    )
    pod = client.V1PodTemplateSpec(spec=client.V1PodSpec(containers=[container]))
    job = client.V1JobTemplateSpec(spec=client.V1JobSpec(template=pod), metadata=client.V1ObjectMeta())
    spec = client.V1CronJobSpec(job_template=job, schedule="* * * * *")
    parent = client.V1CronJob(spec=spec, metadata=client.V1ObjectMeta(name="backup-verify", uid="u"))
    job: Any = cluster.by_hand(parent, TEXTS, "one")
    assert [expand(word, {"A": "x"}) for word in job.spec.template.spec.containers[0].command] == TEXTS
