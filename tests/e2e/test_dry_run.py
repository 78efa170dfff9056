"""Objects of generated configurations pass the API server's own validation: a dry run, which stores nothing."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

from components.config import ConfigError, load_app, load_environment
from tests.fuzz import generator
from tests.unit.program import deploy

from .leftovers import LABEL
from .stack import admin

NAMESPACE = "tiers-dry-run"
FOREIGN = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
"""Kinds of an operator that the lab has only for the tests of monitoring."""
generated = settings(
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """A namespace to name in the objects."""
    admin("create", "namespace", NAMESPACE)
    admin("label", "namespace", NAMESPACE, f"{LABEL}=dry-run")
    yield
    admin("delete", "namespace", NAMESPACE, "--wait=false")


def objects(configuration: generator.Configuration) -> list[dict[str, Any]]:
    """Return the Kubernetes objects that a configuration is rendered to; none if it is refused."""
    try:
        load_environment(configuration.environment, load_app(configuration.app))
        deployment = deploy(
            configuration.app, configuration.environment, stack=configuration.stack, secrets=configuration.secrets
        )
    except ConfigError:
        return []
    inputs = [entry.inputs for entry in deployment.sorted if entry.custom and entry.type.startswith("kubernetes:")]
    return [_moved(json.loads(json.dumps(each))) for each in inputs if each["kind"] not in FOREIGN]


def _moved(found: dict[str, Any]) -> dict[str, Any]:
    """Return an object as it would be in this test's namespace."""
    if found["kind"] == "Namespace":
        found["metadata"]["name"] += "-dry-run"
    else:
        found["metadata"]["namespace"] = NAMESPACE
    return found


def refused(found: list[dict[str, Any]]) -> str:
    """Return the errors of the API server for these objects."""
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": found})
    done = subprocess.run(
        ["kubectl", "--context", "lab", "create", "--dry-run=server", "--filename", "-", "--output", "name"],
        input=manifest, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stderr if done.returncode else ""


def test_server_refuses_an_object_that_breaks_its_rules() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a.b"}, "spec": {"ports": [{"port": 70_000}]}}
    said = refused([_moved(wrong)])
    assert "metadata.name" in said
    assert "spec.ports[0].port" in said


@settings(generated, max_examples=12)
@given(generator.correct())
def test_correct_configuration_is_accepted_by_the_server(configuration: generator.Configuration) -> None:
    assume(configuration.environment["platform"] == "kubernetes")
    found = objects(configuration)
    assert found
    assert refused(found) == ""


@settings(generated, max_examples=40)
@given(generator.mutated())
def test_mutated_configuration_is_refused_by_the_program_or_accepted_by_the_server(
    configuration: generator.Configuration,
) -> None:
    found = objects(configuration) if isinstance(configuration.environment, dict) else []
    assert not found or refused(found) == ""


@pytest.mark.long
@settings(generated, max_examples=1500)
@given(generator.mutated())
def test_many_mutated_configurations_are_refused_by_the_program_or_accepted_by_the_server(
    configuration: generator.Configuration,
) -> None:
    found = objects(configuration) if isinstance(configuration.environment, dict) else []
    assert not found or refused(found) == ""
