"""Generated configurations on the API server's own validation: a dry run, which stores nothing."""

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
from .stack import admin

NAMESPACE = "tiers-dry-run"
FOREIGN = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
"""Kinds of an operator that the lab has for the tests of monitoring only."""
generated = settings(
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """Create a namespace for the objects."""
    admin("create", "namespace", NAMESPACE)
    admin("label", "namespace", NAMESPACE, f"{LABEL}=dry-run")
    yield
    admin("delete", "namespace", NAMESPACE, "--wait=false")


def objects(configuration: generator.Configuration) -> list[dict[str, Any]]:
    """Render a configuration, and return its Kubernetes objects; none if it is refused."""
    try:
        deployment = render(configuration)
    except ConfigError:
        return []
    inputs = [entry.inputs for entry in deployment.sorted if entry.custom and entry.type.startswith("kubernetes:")]
    return [_moved(json.loads(json.dumps(entry))) for entry in inputs if entry["kind"] not in FOREIGN]


def _moved(manifest: dict[str, Any]) -> dict[str, Any]:
    """Move an object into this test's namespace."""
    if manifest["kind"] == "Namespace":
        manifest["metadata"]["name"] += "-dry-run"
    else:
        manifest["metadata"]["namespace"] = NAMESPACE
    return manifest


def refused(objects: list[dict[str, Any]]) -> str:
    """Send objects to the API server, and return its errors."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    done = subprocess.run(
        ["kubectl", "--context", "lab", "create", "--dry-run=server", "--filename", "-", "--output", "name"],
        input=text, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stderr if done.returncode else ""


def errors(configuration: generator.Configuration) -> str:
    """Return the errors of the API server for a configuration; none if the program refuses it first."""
    rendered = objects(configuration) if isinstance(configuration.environment, dict) else []
    return refused(rendered) if rendered else ""


def test_server_refuses_an_invalid_object() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a.b"}, "spec": {"ports": [{"port": 70_000}]}}
    message = refused([_moved(wrong)])
    assert "metadata.name" in message
    assert "spec.ports[0].port" in message


@settings(generated, max_examples=12)
@given(generator.correct())
def test_correct_configuration_is_accepted_by_the_server(configuration: generator.Configuration) -> None:
    assume(configuration.environment["platform"] == "kubernetes")
    rendered = objects(configuration)
    assert rendered
    assert refused(rendered) == ""


@settings(generated, max_examples=40)
@given(generator.mutated())
def test_mutated_configuration_is_refused_by_the_program_or_accepted_by_the_server(
    configuration: generator.Configuration,
) -> None:
    assert errors(configuration) == ""


@pytest.mark.long
@settings(generated, max_examples=1500)
@given(generator.mutated())
def test_many_mutated_configurations_are_refused_by_the_program_or_accepted_by_the_server(
    configuration: generator.Configuration,
) -> None:
    assert errors(configuration) == ""
