"""Tests that the Kubernetes API server accepts the objects of generated configurations.

The tests use dry runs: the server checks the objects but stores none of them.
"""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

from components.config import ConfigError
from tests.fuzz import generator
from tests.fuzz.run import render

from .leftovers import LABEL
from .stack import run_kubectl

NAMESPACE = "tiers-dry-run"
FOREIGN = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
"""Kinds of prometheus-operator. The tests skip objects of these kinds, because a cluster may run without prometheus-operator."""
SETTINGS = settings(
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """Create the namespace of the objects, and delete it after the tests."""
    run_kubectl("create", "namespace", NAMESPACE)
    run_kubectl("label", "namespace", NAMESPACE, f"{LABEL}=dry-run")
    yield
    run_kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def objects(configuration: generator.Configuration) -> list[dict[str, Any]]:
    """Return the Kubernetes objects of a configuration, or an empty list if the program refuses the configuration."""
    try:
        deployment = render(configuration)
    except ConfigError:
        return []
    inputs = [entry.inputs for entry in deployment.sorted if entry.custom and entry.type.startswith("kubernetes:")]
    return [_in_test_namespace(json.loads(json.dumps(entry))) for entry in inputs if entry["kind"] not in FOREIGN]


def _in_test_namespace(manifest: dict[str, Any]) -> dict[str, Any]:
    """Move an object to the namespace of this test, and return the object. If the object is a Namespace, only rename it."""
    if manifest["kind"] == "Namespace":
        manifest["metadata"]["name"] += "-dry-run"
    else:
        manifest["metadata"]["namespace"] = NAMESPACE
    return manifest


def server_errors(objects: list[dict[str, Any]]) -> str:
    """Return the errors of the API server for these objects, or an empty text if the server accepts all objects."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    process = subprocess.run(
        ["kubectl", "--context", "lab", "create", "--dry-run=server", "--filename", "-", "--output", "name"],
        input=text, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return process.stderr if process.returncode else ""


def errors_of_configuration(configuration: generator.Configuration) -> str:
    """Return the errors of the API server for a configuration.

    The text is empty if the server accepts all objects, or if the program refuses the configuration.
    """
    rendered = objects(configuration) if isinstance(configuration.environment, dict) else []
    return server_errors(rendered) if rendered else ""


def test_server_refuses_an_invalid_object() -> None:
    invalid_service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a.b"},
        "spec": {"ports": [{"port": 70_000}]},
    }
    message = server_errors([_in_test_namespace(invalid_service)])
    assert "metadata.name" in message
    assert "spec.ports[0].port" in message


@settings(SETTINGS, max_examples=12)
@given(generator.correct())
def test_correct_configuration_is_accepted_by_the_server(configuration: generator.Configuration) -> None:
    assume(configuration.environment["platform"] == "kubernetes")
    rendered = objects(configuration)
    assert rendered
    assert server_errors(rendered) == ""


@settings(SETTINGS, max_examples=40)
@given(generator.mutated())
def test_mutated_configuration_is_refused_by_the_program_or_accepted_by_the_server(
    configuration: generator.Configuration,
) -> None:
    assert errors_of_configuration(configuration) == ""


@pytest.mark.long
@settings(SETTINGS, max_examples=1500)
@given(generator.mutated())
def test_many_mutated_configurations_are_refused_by_the_program_or_accepted_by_the_server(
    configuration: generator.Configuration,
) -> None:
    assert errors_of_configuration(configuration) == ""
