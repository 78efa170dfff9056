"""Functions that run the program on a generated configuration and judge the rendered objects or the error."""

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from components.config import ConfigError, load_app, load_environment
from tests.unit.program import Deployment, deploy

from . import judge
from .generator import Configuration


def render(configuration: Configuration) -> Deployment:
    """Run the program on a configuration, and return the resources that the program registers.

    Raises:
        ConfigError: The program refuses the configuration.
    """
    load_environment(configuration.environment, load_app(configuration.app))
    return deploy(
        configuration.app, configuration.environment, stack=configuration.stack, secrets=configuration.secrets
    )


def problems(configuration: Configuration) -> list[str]:
    """Run the program on a configuration, and return the problems that the judge finds.

    Every rendered object must be valid. If the program refuses the configuration instead, the error message must
    contain a path, a problem and a fix.
    """
    try:
        deployment = render(configuration)
    except ConfigError as error:
        return list(judge.error_problems(str(error)))
    except Exception as error:
        return [f"traceback: {type(error).__name__}: {str(error)[:300]}"]
    return list(object_problems(deployment))


def object_problems(deployment: Deployment) -> Iterator[str]:
    """Yield the problems that the judge finds in the registered Kubernetes and Docker objects."""
    registered = [entry for entry in deployment.sorted if entry.custom and entry.ignores != ("*",)]
    yield from judge.kubernetes_problems([entry.inputs for entry in registered if entry.type.startswith("kubernetes:")])
    yield from judge.docker_problems(
        [(entry.kind, entry.inputs) for entry in registered if entry.type.startswith("docker:")]
    )


def write_case(configuration: Configuration, folder: Path, lines: list[str]) -> None:
    """Write a configuration to `folder` in the format of tests/cases, with `lines` as comments in EXPECTED.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    project_file = {"name": "board", "runtime": "python", "config": {"app": {"value": configuration.app}}}
    settings = {"board:environment": configuration.environment, "board:secrets": configuration.secrets}
    for name, content in (("Pulumi.yaml", project_file), (f"Pulumi.{configuration.stack}.yaml", {"config": settings})):
        (folder / name).write_text(yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, allow_unicode=True))
    (folder / "EXPECTED.txt").write_text("".join(f"# {line}\n" for line in lines))
