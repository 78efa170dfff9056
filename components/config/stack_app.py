"""Reduce an application to the stores that a stack has (`app.services.NAME.environments`)."""

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from . import template
from .app import App, ServiceSettings
from .environment import Environment
from .errors import refuse


def stack_app(app: App, environment: Environment, stack: str) -> App:
    """Return the application without the stores that a stack does not have.

    No service of the result needs an absent store. A variable with a value of an absent store is left out if the environment sets
    this variable, for example to the address of an external server.

    Args:
        app: the application with all stores.
        environment: the environment of the stack. Its cross-checks need the result, so they run afterwards.
        stack: name of the stack.

    Raises:
        ConfigError: a template reads a value of an absent store, or the environment has settings of an absent store.
    """
    absent = {name for name, store in app.stores.items() if not _is_in(stack, store.environments)}
    if not absent:
        return app
    refuse(_environment_errors(environment, absent, stack))
    refuse(_template_errors(app, environment, absent, stack))
    services = {name: service for name, service in app.services.items() if name not in absent}
    reduced = {
        name: settings.model_copy(update=_changes(settings, environment.tier_settings(name).env, absent))
        for name, settings in app.slot_services.items()
    }
    services |= {name: settings for name, settings in reduced.items() if name in services}
    fixed = {name: settings for name, settings in reduced.items() if name not in services}
    return app.model_copy(update={**fixed, "services": services})


def _is_in(stack: str, patterns: Collection[str]) -> bool:
    """Return whether a list of names and patterns, such as `pr-*`, contains a stack. An empty list contains all stacks."""
    return not patterns or any(fnmatchcase(stack, pattern) for pattern in patterns)


def _changes(settings: ServiceSettings, env: Collection[str], absent: Collection[str]) -> dict[str, object]:
    """Return the changed settings of a service in a slot: `needs` and `secret_env` without absent stores."""
    return {
        "needs": tuple(need for need in settings.needs if need not in absent),
        "secret_env": {
            name: text
            for name, text in settings.secret_env.items()
            if name not in env or not _absent_owners(text, absent)
        },
    }


def _absent_owners(text: str, absent: Collection[str]) -> list[str]:
    """Return the absent stores whose values a template reads."""
    return [placeholder.owner for placeholder in template.placeholders(text) if placeholder.owner in absent]


def _template_errors(app: App, environment: Environment, absent: Collection[str], stack: str) -> Iterator[str]:
    """Yield an error for each template that reads a value of an absent store, unless the environment replaces the template."""
    for tier, service in app.slot_services.items():
        for key, text in service.templates.items():
            group, name = key.split(".")
            is_variable = group == "secret_env"
            if is_variable and name in environment.tier_settings(tier).env:
                continue
            for owner in _absent_owners(text, absent)[:1]:
                fix = f"set {name} in environment.tiers.{tier}.env"
                fix = (
                    fix
                    if is_variable
                    else "read the value from a variable (secret_env), which environment.tiers can replace"
                )
                yield f"{app.path(tier)}.{key}: the stack {stack} has no {owner} (app.services.{owner}.environments); {fix}"


def _environment_errors(environment: Environment, absent: Collection[str], stack: str) -> Iterator[str]:
    """Yield an error for each setting of an absent store in the environment."""
    for key, names in (("tiers", environment.tiers), ("images", environment.images)):
        for name in sorted(absent & names.keys()):
            yield (
                f"environment.{key}.{name}: app.services.{name}.environments does not list the stack {stack}; "
                f"remove this key, or add {stack} to the list"
            )
