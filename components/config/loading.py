"""Load the configuration of a stack: read it, check it and return it as frozen models."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar, cast

import pulumi
from pulumi import Config, ConfigTypeError, Output
from pydantic import ValidationError

from ..model.services import DATABASE
from . import explain, passwords
from .app import App, app_model
from .app_checks import app_errors
from .base import Model
from .environment import Environment
from .environment_checks import environment_errors
from .errors import ConfigError, refuse
from .grammar import kind
from .secret_checks import secret_problem, secret_size_errors, variable_errors
from .stack_app import stack_app
from .stack_checks import stack_name_errors

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked configuration of a stack."""

    app: App
    environment: Environment
    secrets: dict[str, str] = field(repr=False)
    """Values of the secrets by name. Write the values only into secret files of containers."""
    sealed: Output[Mapping[str, str]] = field(repr=False)
    """The values of `secrets` as an output, which Pulumi encrypts in the state."""
    plain: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)
    """Unchecked values of `app` and `environment`."""


def load() -> Settings:
    """Return the configuration of the current stack, from Pulumi.yaml and the stack file.

    Raises:
        ConfigError: the configuration is invalid. No resource has been changed.
    """
    config = Config()
    value = _object(config, "environment")
    if value is None:
        refuse(_other_project_errors(pulumi.runtime.config.CONFIG.get(), pulumi.get_project()))
    return settings_of(_object(config, "app"), value)


def settings_of(app_value: object, environment_value: object, secrets_value: object = None) -> Settings:
    """Validate values, and return them as the configuration of the current stack.

    Args:
        app_value: value of `app`.
        environment_value: value of `environment`.
        secrets_value: value of `secrets`; None to read the secrets of the stack file.

    Raises:
        ConfigError: a value is invalid, or a secret is not set.
    """
    stack = pulumi.get_stack()
    app, environment = load_stack(app_value, environment_value, stack)
    check_stack(stack, app, environment)
    configured = secrets_value or _object(Config(), "secrets")
    secrets = check_secrets(configured, app, environment.secrets_in_cluster, environment.secrets)
    refuse(variable_errors(app, secrets))
    if environment.kubernetes:
        refuse(secret_size_errors(app, secrets))
    plain = {"app": app_value, "environment": environment_value}
    return Settings(app=app, environment=environment, secrets=secrets, sealed=Output.secret(secrets), plain=plain)


def _object(config: Config, key: str) -> object:
    try:
        return cast(object, config.get_object(key))
    except ConfigTypeError:
        raise ConfigError(f"{key}: it is a text; write a mapping, with keys below it") from None
    except (ValueError, RecursionError):
        raise ConfigError(
            f"{key}: the value can't be read; write a mapping that contains only texts, numbers, lists and mappings"
        ) from None


def _other_project_errors(keys: Iterable[str], project: str) -> Iterator[str]:
    """Yield an error for each key `PROJECT:environment` of another project. Such a key remains after a project is renamed."""
    for key in sorted(keys):
        if key.endswith(":environment") and key != f"{project}:environment":
            yield f"environment: the key is {key}, but the project is {project}; rename the key to {project}:environment"


def check_stack(stack: str, app: App, environment: Environment) -> None:
    """Check that the platform accepts the name of a stack, and that `copy_of` names another stack.

    Raises:
        ConfigError: the platform would refuse names or labels that contain the stack's name, or `copy_of` names the stack
            itself.
    """
    refuse(stack_name_errors(stack, app, environment))
    if environment.tier_settings(DATABASE.name).copy_of == stack:
        raise ConfigError(
            f"environment.tiers.database.copy_of: {stack} is this environment itself; name another environment"
        )


def load_app(value: object) -> App:
    """Validate the value of `app`, and return it as a model.

    Raises:
        ConfigError: a key is unknown or missing, or a value is invalid or contradicts another value.
    """
    app = _validated(app_model(), value, "app")
    refuse(app_errors(app))
    return app


def load_stack(app_value: object, environment_value: object, stack: str) -> tuple[App, Environment]:
    """Validate the values of `app` and `environment` for a stack. Return the application without the stores that the stack lacks.

    Args:
        app_value: value of `app`.
        environment_value: value of `environment`.
        stack: name of the stack.

    Raises:
        ConfigError: a key is unknown or missing, or a value is invalid or contradicts another value.
    """
    app = load_app(app_value)
    environment = _validated(Environment, environment_value, "environment")
    app = stack_app(app, environment, stack)
    refuse(environment_errors(app, environment))
    return app, environment


def load_environment(value: object, app: App) -> Environment:
    """Validate the value of `environment` for an application, and return it as a model.

    Raises:
        ConfigError: a key is unknown or missing, or a value is invalid or contradicts another value.
    """
    environment = _validated(Environment, value, "environment")
    refuse(environment_errors(app, environment))
    return environment


def check_secrets(
    value: object, app: App, in_cluster: Collection[str] = (), of_environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Validate the value of `secrets`, and return the secrets that the configuration uses. Never log the result.

    Args:
        value: value of `secrets`, decrypted.
        app: the application.
        in_cluster: names of secrets whose values are in the cluster. These secrets are neither checked
            nor returned.
        of_environment: secrets that only the environment uses: name → config path (`Environment.secrets`).

    Raises:
        ConfigError: a secret is not set, is not a text, is too large, or would be refused by the program that reads it. The
            message never contains the value.
    """
    if value is not None and not isinstance(value, Mapping):
        fix = "set each secret by its name, as in `pulumi config set --secret --path secrets.NAME`"
        raise ConfigError(f"secrets: it is {kind(value)}; {fix}")
    entries = cast(Mapping[object, object], value or {})
    used = {name: path for name, path in {**(of_environment or {}), **app.secrets}.items() if name not in in_cluster}
    refuse(
        f"secrets.{name}: {path} uses this secret, but its value is missing or is not a text; "
        f"run `make secrets`, or set it with `pulumi config set --secret --path secrets.{name}`"
        for name, path in sorted(used.items())
        if not isinstance(entries.get(name), str) or not entries.get(name)
    )
    values = {name: str(entries[name]) for name in used}
    uses = [*(of_environment or {}).items(), *app.secrets.items()]
    refuse(
        f"secrets.{name}: {path} uses this secret, but {problem}; set another value with `pulumi config set --secret --path secrets.{name}`"
        for name, path in sorted(uses)
        if name in values and (problem := passwords.problem(path, values[name]) or secret_problem(values[name]))
    )
    return values


@cache
def _explainer(app: type[App]) -> explain.Explainer:
    return explain.Explainer({"app": explain.schema_of(app), "environment": explain.schema_of(Environment)})


_BEGINNINGS = {
    "app": "describe the application in Pulumi.yaml, below config.app.value",
    "environment": "describe it in the stack file, as in PROJECT:environment: {platform: docker}",
}


def _validated(model: type[M], value: object, root: str) -> M:
    if value is None or value == {}:
        raise ConfigError(f"{root}: it is not set; {_BEGINNINGS[root]}")
    if not isinstance(value, Mapping):
        raise ConfigError(f"{root}: it is {kind(value)}; write a mapping, with keys below it")
    value_filter = explain.ValueFilter(root)
    try:
        validated = model.model_validate(value_filter.remove_invalid(cast(object, value)))
    except ValidationError as error:
        # Pydantic counts only valid items, so it reports a list with an invalid item as too short. Ignore this error for such lists.
        explainer = _explainer(app_model())
        details = [item for item in error.errors() if item["type"] != "too_short" or not item["input"]]
        details = [item for item in details if not value_filter.covers(explainer.path(root, item["loc"]))]
        lines = [*value_filter.problems, *(explainer.line(root, detail) for detail in details)]
        raise ConfigError(explain.join_problems(root, lines)) from None
    refuse(iter(value_filter.problems), root)
    return validated
