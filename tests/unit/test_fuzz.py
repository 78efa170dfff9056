"""Tests with generated configurations.

Tiers must either render valid objects from a configuration or refuse the configuration with a path and a fix. The
module tests.fuzz.judge finds invalid objects. This file also tests the judge itself.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import generator, judge
from tests.fuzz.run import object_problems, problems

from .program import first_release

PROGRAM_RUNS = max(settings.get_profile("quick").max_examples // 10, 3)
"""Number of examples of a test that runs the whole program.

The number is a tenth of the usual number, because each run takes 0.2 s.
"""
fuzz_settings = settings(
    max_examples=PROGRAM_RUNS,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    database=None,
)


@fuzz_settings
@given(generator.correct())
def test_generated_correct_configuration_is_rendered_to_valid_objects(configuration: generator.Configuration) -> None:
    assert problems(configuration) == []


@settings(fuzz_settings, max_examples=4 * PROGRAM_RUNS)
@given(generator.mutated())
def test_mutated_configuration_is_refused_with_a_fix_or_rendered_to_valid_objects(
    configuration: generator.Configuration,
) -> None:
    assert problems(configuration) == []


@settings(fuzz_settings, max_examples=2 * PROGRAM_RUNS)
@given(generator.bounded())
def test_extreme_values_give_valid_objects_or_an_error_that_names_a_fix(
    configuration: generator.Configuration,
) -> None:
    assert problems(configuration) == []


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_judge_of_the_fuzz_tests_accepts_all_objects_of_the_example_application(stack: str) -> None:
    assert list(object_problems(first_release(stack))) == []


# ---------------------------------------------------------------------- the judge finds problems


def pod(**changes: Any) -> dict[str, Any]:
    container = {
        "name": "api",
        "image": "acme/x:1",
        "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}},
        "volumeMounts": [{"name": "scratch-tmp", "mountPath": "/tmp"}],
        "env": [{"name": "A", "value": "1"}],
    } | changes.pop("container", {})
    spec = {"containers": [container], "volumes": [{"name": "scratch-tmp", "emptyDir": {}}]} | changes
    return {"kind": "Deployment", "metadata": {"name": "api"}, "spec": {"template": {"spec": spec}}}


def route(**changes: Any) -> dict[str, Any]:
    match = {"path": {"type": "PathPrefix", "value": changes.pop("value", "/")}}
    rule = {"backendRefs": [{"name": "api", "port": 8000}], "matches": [match] * changes.pop("matches", 1)}
    spec = {"hostnames": ["a.test"], "rules": [rule] * changes.pop("rules", 1)} | changes
    return {"kind": "HTTPRoute", "metadata": {"name": "x"}, "spec": spec}


def manifest(kind: str, name: str = "x", labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "labels": labels or {}}, **more}


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        ([pod(), route()], ""),
        ([manifest("Service", "1x")], "Service/1x: invalid name"),
        ([manifest("Secret", "a" * 254)], "name"),
        ([manifest("CronJob", "a" * 53, spec={"schedule": "* * * * *"})], "over 52"),
        ([manifest("CronJob", spec={"schedule": "0 0 * * sat-sun"})], "schedule"),
        ([manifest("CronJob", spec={"schedule": "0 0 13 * fri"})], "either of two days"),
        ([pod(container={"command": ["x" * 2**17]})], "an argument or variable of 131073 bytes"),
        ([pod(container={"volumeMounts": [{"name": "scratch-tmp", "mountPath": "/" + "a" * 256}]})], "over 255 bytes"),
        ([manifest("Service"), manifest("Service")], "Service/x: twice"),
        ([manifest("Service", labels={"a/b/c": "x"})], "label key"),
        ([manifest("Service", labels={"a": "x/"})], "label a="),
        ([manifest("ConfigMap", data={"my file": ""})], "key 'my file'"),
        ([manifest("ConfigMap", data={"a": "x" * 2**20 + "x"})], "over 1 MiB"),
        ([pod(volumes=[])], "mount of an undeclared volume"),
        ([pod(volumes=[{"name": "scratch-tmp"}] * 2)], "twice"),
        ([pod(volumes=[{"name": "scratch-tmp"}, {"name": "a b"}])], "volume name"),
        ([pod(terminationGracePeriodSeconds=-1)], "terminationGracePeriodSeconds"),
        ([pod(container={"image": "acme/X:1"})], "image"),
        ([pod(container={"env": [{"name": "A B"}]})], "variable 'A B'"),
        ([pod(container={"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}})], "more cpu than its limit"),
        ([pod(container={"volumeMounts": [{"name": "scratch-tmp", "mountPath": "//"}]})], "mount target '//'"),
        ([route(hostnames=["a.test"] * 17)], "17 hostnames"),
        ([route(hostnames=["a..b"])], "hostname 'a..b'"),
        ([route(rules=17)], "17 rules"),
        ([route(matches=65)], "65 matches in a rule"),
        ([route(rules=3, matches=64)], "192 matches"),
        ([route(value="/a//b")], "path '/a//b'"),
        ([manifest("NetworkPolicy", spec={"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/40"}}]}]})], "cidr"),
        ([manifest("HorizontalPodAutoscaler", spec={"minReplicas": 3, "maxReplicas": 2})], "minReplicas"),
    ],
)
def test_judge_of_the_fuzz_tests_finds_invalid_kubernetes_objects(objects: list[dict[str, Any]], problem: str) -> None:
    problems = list(judge.kubernetes_problems(objects))
    assert any(problem in line for line in problems) if problem else problems == []


CONTAINER = {"name": "x-t-api", "memory": 64, "cpus": "0.5", "tmpfs": {"/tmp": ""}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"name": "-x"}, "name"),
        ({"tmpfs": {"//": ""}}, "mount target"),
        ({"volumes": [{"containerPath": "/tmp/"}]}, "'/tmp' twice"),
        ({"envs": ["A\0=1"]}, "variable"),
        ({"command": ["timeout", "3.6e+06", "x"]}, "timeout 3.6e+06"),
        ({"envs": [f"A{number}=" + "x" * 100_000 for number in range(21)]}, "bytes of command and variables"),
        ({"memory": 5}, "memory"),
        ({"uploads": [{"file": "/x", "content": ""}]}, "upload"),
        ({"ports": [{"internal": 80, "external": 65536}]}, "port"),
        ({"ports": [{"internal": 80, "external": 80}, {"internal": 81, "external": 80}]}, "published twice"),
    ],
)
def test_judge_of_the_fuzz_tests_finds_invalid_docker_resources(changes: dict[str, Any], problem: str) -> None:
    problems = list(judge.docker_problems([("Container", CONTAINER | changes)]))
    assert any(problem in line for line in problems) if problem else problems == []


@pytest.mark.parametrize("reference", ["x-Api:1", "a..b/x:1", "x:-1", "x/:1", "x@sha256:0"])
def test_judge_of_the_fuzz_tests_finds_invalid_image_references(reference: str) -> None:
    assert list(judge.docker_problems([("RemoteImage", {"name": reference})]))


@given(
    st.sampled_from(["app.x: no path", "app: input should be a valid string; see docs/configuration.md", "Traceback"])
)
@settings(max_examples=3)
def test_judge_of_the_fuzz_tests_finds_error_messages_without_path_or_fix(text: str) -> None:
    assert list(judge.error_problems(text))
