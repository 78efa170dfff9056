"""Conversion of commands: a service's own command, and the migrations, tasks and seeds that run once in every release."""

import re
import shlex
from collections.abc import Mapping, Sequence

from components.model import services
from components.model.names import secret_variable
from components.model.services import API, WEB, WORKER, prefix

from .compose_service import ComposeService, Plain, as_name, names_host
from .project import Project

_MIGRATION = re.compile(r"\b(migrate|migrations?|alembic|db:migrate|flyway|liquibase)\b")
_DEVELOPMENT_COMMAND = re.compile(r"--reload\b|\brunserver\b|\bnodemon\b|\bwatch(files|medo)?\b|\bdev\b|\bvite$")
_CHANGES_SHELL = re.compile(
    r"(cd|export|set|unset|source|\.|alias|umask|ulimit|trap|eval|shift|read|wait|if|then|elif|else|fi|for|while|until|case|do|done"
    r"|function|\{|\}|\(|\[|\[\[|!|\w+=\S*)(\s|$)"
)
"""Pattern of a step that must share a shell with other steps: it changes the shell (`cd`) or is part of a block (`if`)."""
_RUNNERS = {
    "python",
    "python3",
    "node",
    "npm",
    "npx",
    "pnpm",
    "yarn",
    "run",
    "bundle",
    "exec",
    "php",
    "sh",
    "bash",
    "manage.py",
}


def add_command(project: Project, service: ComposeService, part: Plain) -> None:
    """Add the command of a service to its settings `part`.

    A command such as `migrate && collectstatic && serve` is split: its last part becomes the command of the tier, and
    the other parts become steps that run once in every release.
    """
    path = f"{service.path}.command"
    if service.raw.get("entrypoint"):
        project.notes.add_assumption(
            f"{service.path}.entrypoint",
            "it is now the first part of the command, so an entrypoint of the image still runs before it",
        )
    _note_hosts(project, service.command, path)
    *steps, command = split_command(service.command)
    if not steps and "&&" in " ".join(command):
        project.notes.add_assumption(
            path,
            "its steps need one shell, so all of them run at each start of a replica; a migration belongs into `migrate`",
        )
    for step in steps:
        _add_step(project, part, step, path)
    if command and "reload" in part and _DEVELOPMENT_COMMAND.search(" ".join(command)):
        part["reload"] = {"command": command, **part["reload"]}
        project.notes.add_assumption(
            path,
            "it looks like a command for development, so only `reload` uses it; other environments run the command of the image",
        )
    elif command:
        part["command"] = command


def add_one_off_services(project: Project, parts: Mapping[str, Plain]) -> None:
    """Convert each service that runs once into a migration, task or seed of a tier.

    If no tier has the same image, add a note instead.
    """
    for service in project.roles.one_off:
        tiers = [candidate for candidate in (API.name, WORKER.name, WEB.name)
                if candidate in project.roles.tiers and project.roles.tiers[candidate].source == service.source]  # fmt: skip
        if not tiers:
            project.notes.add_unconverted(
                service.path,
                "it runs once, and no tier runs its image; run it by hand, or make it a task of a tier",
            )
        elif "seed" in service.words:
            parts[tiers[0]]["seed"] = {"command": service.command}
            project.notes.add_assumption(
                service.path, f"it is app.{tiers[0]}.seed, which runs if environment.seed is true"
            )
        else:
            _add_step(project, parts[tiers[0]], service.command, service.path)


def _note_hosts(project: Project, command: Sequence[str], path: str) -> None:
    """Add a note for each Compose service that is a host name in a command, because host names change."""
    for name in sorted(project.services):
        if not any(names_host("", word, name) or f"/dev/tcp/{name}/" in word for word in command):
            continue
        new_name = project.roles.new_name(name)
        if not new_name:
            address = "it is not imported"
        elif not services.common_catalogue().is_shared(new_name):
            address = f"read {prefix(new_name)}_URL"
        elif secret := project.secrets.passwords.get(new_name):
            address = f"its address is {new_name} here, and its password is in {secret_variable(secret)}"
        else:
            address = f"its address is {new_name} here"
        project.notes.add_unconverted(path, f"it contains the host {name}; {address}")


def _add_step(project: Project, part: Plain, command: list[str], path: str) -> None:
    if _MIGRATION.search(" ".join(command)) and "migrate" not in part:
        part["migrate"] = {"command": command}
        project.notes.add_assumption(path, "it looks like a migration, so it runs once in every release, as `migrate`")
    else:
        name = _task_name(command)
        part.setdefault("tasks", {})[name] = {"command": command}
        project.notes.add_assumption(path, f"it runs once in every release, as tasks.{name}")


def split_command(command: list[str]) -> list[list[str]]:
    """Split a command such as `sh -c "a && b"` into a list of commands.

    If the parts must run in the same shell, return a list with only the unchanged command.
    """
    is_shell = (
        len(command) == 3 and re.fullmatch(r"(/bin/)?(ba|a)?sh", command[0]) and command[1] in ("-c", "-ec", "-lc")
    )
    if not is_shell or "&&" not in command[2]:
        return [command]
    steps = _split_script(command[2])
    if not steps:
        return [command]
    # A step without shell syntax needs no shell, so it becomes a list of words.
    return [shlex.split(text) if not re.search(r"[$|;<>*`(]", text) else [*command[:2], text] for text in steps]


def _split_script(script: str) -> list[str]:
    """Return the steps that a script joins with `&&`, or an empty list if the steps can't run separately."""
    quote, begin, steps = "", 0, list[str]()
    for position, character in enumerate(script):
        if position < begin:
            continue  # This is the second `&` of `&&`.
        if quote and script.startswith("&&", position):
            return []
        if quote or character in "'\"":
            quote = character if not quote else "" if character == quote else quote
        elif character in ";\n\\()" or script.startswith("||", position):
            return []
        elif script.startswith("&&", position):
            steps.append(script[begin:position])
            begin = position + 2
        elif character == "&":
            return []
    steps = [text.strip().removeprefix("exec ").strip() for text in [*steps, script[begin:]]]
    if quote or not all(steps) or any(_CHANGES_SHELL.match(text) for text in steps):
        return []
    return steps


def _task_name(command: Sequence[str]) -> str:
    """Return a name for the task that runs a command.

    The name is the first word that is not an interpreter or package manager, or `prepare` if there is no such word.
    """
    words = [word for word in command if word not in _RUNNERS and re.match(r"[a-z]", word) and " " not in word]
    return as_name(words[0].partition(".")[0]) if words else "prepare"
