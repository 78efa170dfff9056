"""Tests that a container receives the same commands, variables and probes on Kubernetes as on Docker.

The kubelet expands `$(NAME)` and `$$` in commands, variables and probes. Therefore `literal` escapes both forms.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import sentinel
from components.platforms.kubernetes import jobs
from components.platforms.kubernetes.expansion import literal
from components.platforms.process import toolbox_program

from .program import CONTAINER, Deployment, deploy, environment, first_release

TEXTS = ["pa$$word", "$(A)", "$$(A)", "$A", "$", "$$", "a$", "$(SLOT)", "$(", "$()", "$(KUBERNETES_SERVICE_HOST)", "5$ü", "$€ $(date)",
         "DO $$ BEGIN END $$", "echo $$ $(SLOT) $(unknown) ${A}", "$(a $(SLOT)", "100%"]  # fmt: skip


def expand_like_the_kubelet(text: str, variables: Mapping[str, str]) -> str:
    """Expand the variable references in a text as the kubelet does (Kubernetes 1.34, expansion.Expand).

    The kubelet reads bytes, not characters. Therefore a byte above 127 after `$` becomes a separate character.
    """
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


def test_expand_like_the_kubelet_passes_the_test_cases_of_kubernetes() -> None:
    """Check `expand_like_the_kubelet` with cases from the documentation and tests of Kubernetes (expand_test.go)."""
    variables = {"VAR_A": "A", "VAR_EMPTY": ""}
    cases = {"$(VAR_A)": "A", "$$(VAR_A)": "$(VAR_A)", "$$$(VAR_A)": "$A", "$(NO)": "$(NO)", "$(VAR_EMPTY)x": "x", "$": "$", "$VAR_A": "$VAR_A",
             "$$$$(VAR_A": "$$(VAR_A", "f000-$$VAR_A": "f000-$VAR_A", "$?_$#": "$?_$#", "$(": "$("}  # fmt: skip
    assert {text: expand_like_the_kubelet(text, variables) for text in cases} == cases


ANY_TEXT = st.text() | st.text("$()A_ab ü", max_size=12) | st.sampled_from(TEXTS)


@given(ANY_TEXT, st.dictionaries(st.sampled_from(["A", "A_", "a", "", "ü", "SLOT"]), st.just("REPLACED")))
def test_literal_text_survives_expansion_by_the_kubelet(text: str, variables: Mapping[str, str]) -> None:
    cluster_variables = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "A_A": "REPLACED"}
    assert expand_like_the_kubelet(literal(text, variables), {**cluster_variables, **variables}) == text


@pytest.mark.parametrize(
    "text",
    [sentinel.plain_script(), sentinel.quoting_script(), toolbox_program(), "sh -c 'echo $(date) $HOME'", "100$"],
)
def test_text_without_variable_references_is_not_escaped(text: str) -> None:
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


def pod_specs(deployment: Deployment) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the resource name and the pod spec of each object that creates pods."""
    for entry in deployment.objects:
        spec = entry.inputs.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
        if "containers" in template.get("spec", {}):
            yield entry.name, template["spec"]


def received_texts(deployment: Deployment) -> dict[str, tuple[list[str], dict[str, str], list[str]]]:
    """Return the command, the variables and the liveness probe of each container after the kubelet's expansion."""
    result: dict[str, tuple[list[str], dict[str, str], list[str]]] = {}
    for name, pod in pod_specs(deployment):
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            variables: dict[str, str] = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
            for variable in container.get("env", ()):
                variables[variable["name"]] = expand_like_the_kubelet(variable.get("value", ""), variables)
            probe = container.get("livenessProbe", {}).get("exec", {}).get("command", [])
            words = [*container.get("command", ()), *container.get("args", ())]
            result[f"{name}/{container['name']}"] = (
                [expand_like_the_kubelet(word, variables) for word in words],
                variables,
                [expand_like_the_kubelet(word, variables) for word in probe],
            )
    return result


def test_containers_receive_the_same_commands_variables_and_probes_on_both_platforms() -> None:
    settings = environment() | {"reload": False, "seed": False, "tiers": {}, "gateway": {"port": 8350}}
    on_docker = {entry.name: entry.inputs for entry in deploy(APP, settings, secrets={}).of_type(CONTAINER)}
    on_kubernetes = received_texts(deploy(APP, CLUSTER, secrets={}))
    names = {"api-blue/api": "blue-api-1", "worker-blue/worker": "blue-worker-1", "blue-api-migrate/api": "blue-api-migrate",
             "blue-api-other/api": "blue-api-other"}  # fmt: skip
    for name, container_name in names.items():
        command, variables, probe = on_kubernetes[name]
        assert command == on_docker[container_name]["command"]
        docker_variables = dict(variable.split("=", 1) for variable in on_docker[container_name]["envs"])
        different_variables = ("RELEASE", "PUBLIC_URL")
        assert {key: variables[key] for key in docker_variables if key not in different_variables} == {
            key: value for key, value in docker_variables.items() if key not in different_variables
        }
        if name.startswith("worker"):
            assert probe == on_docker[container_name]["healthcheck"]["tests"][1:] == ["test", *TEXTS]
    [smoke] = [command for name, (command, _, _) in on_kubernetes.items() if name.endswith("/smoke")]
    assert any("costs $$5 $(SLOT)" in word for word in smoke)


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_example_application_has_no_text_that_the_kubelet_expands(stack: str) -> None:
    """Check that the board's commands and variables contain neither `$(NAME)` nor `$$`."""
    texts = [
        text
        for _, pod in pod_specs(first_release(stack))
        for container in [*pod["containers"], *pod.get("initContainers", ())]
        for text in [*container.get("command", ()), *(variable["value"] for variable in container.get("env", ()))]
    ]
    assert texts
    assert all(expand_like_the_kubelet(text, {"SLOT": "no", "RELEASE": "no", "CONFIG": "no"}) == text for text in texts)
    assert not any("$$" in text for text in texts)


def test_command_of_a_manual_job_survives_expansion_by_the_kubelet() -> None:
    from kubernetes import client

    container = client.V1Container(
        name="backup", env=[client.V1EnvVar(name="A", value="x")], command=["backup", "verify"]
    )
    pod = client.V1PodTemplateSpec(spec=client.V1PodSpec(containers=[container]))
    job = client.V1JobTemplateSpec(spec=client.V1JobSpec(template=pod), metadata=client.V1ObjectMeta())
    spec = client.V1CronJobSpec(job_template=job, schedule="* * * * *")
    parent = client.V1CronJob(spec=spec, metadata=client.V1ObjectMeta(name="backup-verify", uid="u"))
    job: Any = jobs.manual_job(parent, TEXTS, "one")
    assert [expand_like_the_kubelet(word, {"A": "x"}) for word in job.spec.template.spec.containers[0].command] == TEXTS
