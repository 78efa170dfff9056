"""Runs a generated configuration through the program, and judges the result."""

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from components.config import ConfigError, load_app, load_environment
from tests.unit.program import Deployment, deploy

from . import judge
from .generator import Configuration


def render(configuration: Configuration) -> Deployment:
    """Run the program on a configuration.

    Raises:
        ConfigError: the program refuses it.
    """
    load_environment(configuration.environment, load_app(configuration.app))
    return deploy(
        configuration.app, configuration.environment, stack=configuration.stack, secrets=configuration.secrets
    )


def problems(configuration: Configuration) -> list[str]:
    """Return the problems of the program's answer: none if the configuration is refused well or rendered well."""
    try:
        deployment = render(configuration)
    except ConfigError as error:
        return list(judge.errors(str(error)))
    except Exception as error:
        return [f"traceback: {type(error).__name__}: {str(error)[:300]}"]
    return list(judged(deployment))


def judged(deployment: Deployment) -> Iterator[str]:
    """Judge the objects of a whole program."""
    registered = [entry for entry in deployment.sorted if entry.custom and entry.ignores != ("*",)]
    yield from judge.kubernetes([entry.inputs for entry in registered if entry.type.startswith("kubernetes:")])
    yield from judge.docker([(entry.kind, entry.inputs) for entry in registered if entry.type.startswith("docker:")])


def write_case(configuration: Configuration, folder: Path, lines: list[str]) -> None:
    """Write a configuration as a case to be copied into tests/cases/config."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {"name": "board", "runtime": "python", "config": {"app": {"value": configuration.app}}}
    settings = {"board:environment": configuration.environment, "board:secrets": configuration.secrets}
    for name, content in (("Pulumi.yaml", described), (f"Pulumi.{configuration.stack}.yaml", {"config": settings})):
        (folder / name).write_text(yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, allow_unicode=True))
    (folder / "EXPECTED.txt").write_text("".join(f"# {line}\n" for line in lines))
