"""Secrets that are made from templates: environment variables and files such as `DATABASE_URL` (`secret_env`, `secret_files`)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from urllib.parse import quote, urlsplit

from .config import ProcessSettings, template
from .config.template import Placeholder
from .context import Description
from .model import services
from .model.services import Kind
from .model.workload import Secret, SecretPart


def secret_files(settings: ProcessSettings, description: Description, env: Mapping[str, str]) -> tuple[Secret, ...]:
    """Return the secrets of a service that are files made from templates.

    Args:
        settings: settings of the service.
        description: the application and its environment.
        env: addresses of the needed services, as environment variables (`needed_env`); empty for a store.
    """
    return tuple(_filled(name, text, description, env) for name, text in sorted(settings.secret_files.items()))


def secret_env(
    settings: ProcessSettings, description: Description, env: Mapping[str, str], prefix: str = "env"
) -> tuple[tuple[str, Secret], ...]:
    """Return the variables in `secret_env` of a service or a store, as pairs of name and secret.

    Args:
        settings: settings of the service.
        description: the application and its environment.
        env: addresses of the needed services, as environment variables (`needed_env`); empty for a store.
        prefix: beginning of the names of the secrets: `env`, or `task` for values that only tasks get.
    """
    return tuple(
        (name, _filled(f"{prefix}.{name}", text, description, env))
        for name, text in sorted(settings.secret_env.items())
    )


def _filled(name: str, text: str, description: Description, env: Mapping[str, str]) -> Secret:
    """Return the secret with the text of a template. Only secrets, and addresses that differ by slot, stay parts of their own."""
    parts: list[str | SecretPart] = []
    for part in template.parse(text):
        filled = part if isinstance(part, str) else _part(part, description, env)
        if isinstance(filled, str) and parts and isinstance(parts[-1], str):
            parts[-1] += filled
        else:
            parts.append(filled)
    parts = parts or [""]
    used = sorted({part.secret for part in parts if isinstance(part, SecretPart) and part.secret})
    versions = [(secret, description.secrets[secret].version) for secret in used]
    content = [part if isinstance(part, str) else asdict(part) for part in parts]
    version = hashlib.sha256(json.dumps([content, versions], sort_keys=True).encode()).hexdigest()[:16]
    return Secret(name=name, version=version, parts=tuple(parts))


def _part(placeholder: Placeholder, description: Description, env: Mapping[str, str]) -> str | SecretPart:
    app, owner = description.app, placeholder.owner
    if secret := app.secret_of(placeholder):
        return SecretPart(secret=secret, encoded=placeholder.encoded)
    if owner == template.PUBLIC or placeholder.field in template.OWN_ADDRESS_FIELDS:
        environment = description.environment
        url = environment.url if owner == template.PUBLIC else environment.url_of(app.hosts[owner])
        return url if placeholder.field.endswith(template.URL) else urlsplit(url).hostname or ""
    record = app.catalogue.find(owner)
    if record and record.kind is Kind.HTTP:
        return SecretPart(service=owner)
    value = env[f"{services.prefix(owner)}_{placeholder.field.upper()}"]
    return quote(value, safe="") if placeholder.encoded else value
