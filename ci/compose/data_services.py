"""Conversion of the data services: database and cache, with their passwords."""

import re
from collections.abc import Callable
from pathlib import PurePath

from components.model.services import CACHE, DATABASE, port_of

from .compose_service import ComposeService, Plain
from .project import Project
from .roles import has_public_image
from .secret_values import Account


def convert_data_service(project: Project, tier: str, service: ComposeService, password: Callable[[], str]) -> Plain:
    """Return the settings of a data service in `app`. `password` generates a password if the service has none."""
    if published_ports := ", ".join(str(published) for published, _ in service.ports if published):
        project.notes.add_unconverted(
            f"{service.path}.ports",
            f"only the gateway publishes ports, so these are not published: {published_ports}; use `docker exec` to look at the data",
        )
    if [mount for mount in service.mounts if not mount.is_init_script]:
        project.notes.add_unconverted(
            f"{service.path}.volumes",
            "the data is not copied, and the new volume is empty; load a dump of the old data",
        )
    part: Plain = {}
    convert_part = {DATABASE.name: _database, CACHE.name: _cache}.get(tier)
    if not convert_part:
        project.secrets.accounts[tier] = Account(owner=tier, host=service.name, port=port_of(tier), has_password=False)
        return {"image": service.image}
    if not has_public_image(service):
        project.notes.add_unconverted(
            f"{service.path}.{'build' if service.build else 'image'}",
            f"its image has another interface than the public image of the {tier}, so the default image is used; "
            f"set app.{tier}.image to the version of your data",
        )
    elif service.tag in ("", "latest") and not service.digest:
        project.notes.add_assumption(
            f"{service.path}.image",
            "the image has no version, so the default version is used; set the version of your data",
        )
    else:
        part["image"] = service.image
        # In Alpine images PostgreSQL runs as user 70.
        part |= {"uid": 70} if tier == DATABASE.name and "alpine" in service.tag else {}
    return part | convert_part(project, service, password)


def _database(project: Project, service: ComposeService, generate: Callable[[], str]) -> Plain:
    part = _name_and_user(project, service)
    name = _password_of_database(project, service, generate)
    part |= {"password": name} if name != "database-password" else {}
    scripts = [mount.source for mount in service.mounts if mount.is_init_script]
    if files := [project.relative(source) for source in scripts if source.endswith(".sql")]:
        part["init"] = files
    for source in scripts:
        if not source.endswith(".sql"):
            project.notes.add_unconverted(
                f"{service.path}.volumes", f"list the SQL files of {project.shown(source)} in app.database.init"
            )
    for key in sorted(set(service.env) & {"POSTGRES_INITDB_ARGS", "POSTGRES_HOST_AUTH_METHOD", "PGDATA"}):
        project.notes.add_unconverted(
            f"{service.path}.environment.{key}",
            "the database is always created with checksums, UTF-8 and a password",
        )
    if service.command:
        project.notes.add_unconverted(
            f"{service.path}.command",
            "the command is not used; set PostgreSQL's settings in an image, or with ALTER SYSTEM",
        )
    return part


def _name_and_user(project: Project, service: ComposeService) -> Plain:
    """Return the settings `name` and `user` of the database, changed to lower-case letters, digits and underscores."""
    name, user = _original_names(service)
    part: Plain = {"name": name, "user": user}
    for key, variable in (("name", "POSTGRES_DB"), ("user", "POSTGRES_USER")):
        if f"{variable}_FILE" in service.env:
            project.notes.add_unconverted(
                f"{service.path}.environment.{variable}_FILE",
                f"the import does not read the file; set app.database.{key} to the name in the file (now it is {part[key]})",
            )
        allowed = re.sub(r"\W", "_", str(part[key]).lower(), flags=re.ASCII)
        if allowed != part[key]:
            part[key] = allowed
            project.notes.add_unconverted(
                f"{service.path}.environment.{variable}",
                f"a name must have lower-case letters, so it is now {allowed}",
            )
    return part


def _original_names(service: ComposeService) -> tuple[str, str]:
    """Return the name of the database and its user, as in the Compose file."""
    # If the variables of the public image are not set, use the variables of Bitnami's image.
    user = service.env.get("POSTGRES_USER") or service.env.get("POSTGRESQL_USERNAME") or "postgres"
    return service.env.get("POSTGRES_DB") or service.env.get("POSTGRESQL_DATABASE") or user, user


def _password_of_database(project: Project, service: ComposeService, generate: Callable[[], str]) -> str:
    """Record the password and the account of the database, and return the name of the password's secret."""
    file = service.env.get("POSTGRES_PASSWORD_FILE") or ""
    secret = project.secrets.register(PurePath(file).name, project.notes) if file else "database-password"
    password = None if file else service.env.get("POSTGRES_PASSWORD") or service.env.get("POSTGRESQL_PASSWORD")
    if not file:
        project.secrets.values[secret] = password or _new_password(project, service, generate)
    project.secrets.passwords[DATABASE.name] = secret
    name, user = _original_names(service)
    project.secrets.accounts[DATABASE.name] = Account(
        owner=DATABASE.name,
        host=service.name,
        port=port_of(DATABASE.name),
        user=user,
        name=name,
        password=password or None,
        is_new=not (file or password),
    )
    return secret


def _cache(project: Project, service: ComposeService, generate: Callable[[], str]) -> Plain:
    command = " ".join(service.command)
    password_option = re.search(r"--requirepass[ =]['\"]?(\$?\{?)([^\s'\"$}]+)", command)
    password = (
        (service.env.get(password_option[2]) if password_option[1] else password_option[2]) if password_option else None
    )
    password = password or service.env.get("REDIS_PASSWORD")
    project.secrets.values["cache-password"] = password or _new_password(project, service, generate)
    project.secrets.passwords[CACHE.name] = "cache-password"
    project.secrets.accounts[CACHE.name] = Account(
        owner=CACHE.name,
        host=service.name,
        port=port_of(CACHE.name),
        password=password or None,
        is_new=not password,
    )
    if re.sub(r"(redis|valkey)-server|--(appendonly|requirepass)[ =]\S+", "", command).strip():
        project.notes.add_unconverted(
            f"{service.path}.command",
            "the cache is always persistent and has a password; put other settings into an image",
        )
    return {}


def _new_password(project: Project, service: ComposeService, generate: Callable[[], str]) -> str:
    project.notes.add_assumption(service.path, "it had no password; a new one was generated, and is in the secrets")
    return generate()
