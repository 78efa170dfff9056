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
    if service.removes_entrypoint and not service.command:
        project.notes.add_unconverted(
            f"{service.path}.entrypoint",
            "it removes the entrypoint of the image; set `entrypoint` to the command of the image",
        )
    _note_hosts(project, service.command, path)
    *steps, command = split_command(service.command)
    if not steps and "&&" in " ".join(command):
        project.notes.add_assumption(
            path,
            "its steps need one shell, so all of them run at each start of a replica; a migration belongs into `migrate`",
        )
    if command and "reload" in part and _DEVELOPMENT_COMMAND.search(" ".join(command)):
        _add_steps(project, part, steps, path)
        part["reload"] = {"command": command, **part["reload"]}
        project.notes.add_assumption(
            path,
            "it looks like a command for development, so only `reload` uses it; other environments run the command of the image",
        )
        if service.entrypoint:
            _note_entrypoint(project, service)
        return
    entrypoint, steps, command = _split_entrypoint(service)
    _add_steps(project, part, steps, path)
    part |= {"entrypoint": entrypoint} if entrypoint else {}
    part |= {"command": command} if command else {}


def _split_entrypoint(service: ComposeService) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the entrypoint, the steps and the command of a service. The steps are commands that the entrypoint runs too."""
    if service.entrypoint and (texts := _steps_of_shell(service.command)):
        # The entrypoint is a shell, and each step one text for this shell.
        *steps, text = texts
        return service.command[:2], [[step] for step in steps], [text if _needs_shell(text) else f"exec {text}"]
    *steps, command = split_command(service.arguments)
    return service.entrypoint, steps, command


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
            continue
        if not service.command:
            project.notes.add_unconverted(
                service.path,
                f"it runs the command of its image once; make that command a task of app.{tiers[0]}",
            )
            continue
        part = parts[tiers[0]]
        command = _task_command(project, service, project.roles.tiers[tiers[0]], part)
        if "seed" in service.words:
            part["seed"] = {"command": command}
            project.notes.add_assumption(
                service.path, f"it is app.{tiers[0]}.seed, which runs if environment.seed is true"
            )
        else:
            _add_steps(project, part, [command], service.path)


def _task_command(project: Project, service: ComposeService, tier: ComposeService, part: Plain) -> list[str]:
    """Return the command of a service that runs once, as a task of a tier. `part` are the settings of the tier.

    A task runs with the entrypoint of its tier. If the service has another entrypoint, the entrypoint of the tier becomes a
    part of the tier's commands. Otherwise it would run before this task too.
    """
    entrypoint: list[str] = part.get("entrypoint", [])
    if service.entrypoint == entrypoint and service.arguments:
        return service.arguments
    if entrypoint:
        _note_entrypoint(project, tier)
        del part["entrypoint"]
        steps = [part[key] for key in ("migrate", "seed") if key in part] + list(part.get("tasks", {}).values())
        for step in steps:
            step["command"] = [*entrypoint, *step["command"]]
        part["command"] = [*entrypoint, *part.get("command", [])]
    if service.entrypoint:
        _note_entrypoint(project, service)
    return service.command


def _note_entrypoint(project: Project, service: ComposeService) -> None:
    """Add a note about an entrypoint that becomes a part of a command."""
    project.notes.add_assumption(
        f"{service.path}.entrypoint",
        "it is the start of the command now; an entrypoint of the image would still run before it",
    )


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


def _add_steps(project: Project, part: Plain, commands: Sequence[list[str]], path: str) -> None:
    """Add commands that run once in every release. The first one that looks like a migration becomes `migrate`."""
    for command in commands:
        if _MIGRATION.search(" ".join(command)) and "migrate" not in part:
            part["migrate"] = {"command": command}
            project.notes.add_assumption(
                path, "it looks like a migration, so it runs once in every release, as `migrate`"
            )
        else:
            name = _task_name(command)
            part.setdefault("tasks", {})[name] = {"command": command}
            project.notes.add_assumption(path, f"it runs once in every release, as tasks.{name}")


def split_command(command: list[str]) -> list[list[str]]:
    """Split a command such as `sh -c "a && b"` into a list of commands.

    If the parts must run in the same shell, return a list with only the unchanged command.
    """
    # A step without shell syntax needs no shell, so it becomes a list of words.
    steps = _steps_of_shell(command)
    return [[*command[:2], text] if _needs_shell(text) else shlex.split(text) for text in steps] or [command]


def _steps_of_shell(command: Sequence[str]) -> list[str]:
    """Return the steps of a command such as `sh -c "a && b"`, or an empty list for any other command."""
    is_shell = (
        len(command) == 3 and re.fullmatch(r"(/bin/)?(ba|a)?sh", command[0]) and command[1] in ("-c", "-ec", "-lc")
    )
    return _split_script(command[2]) if is_shell and "&&" in command[2] else []


def _needs_shell(text: str) -> bool:
    """Return True if a step has shell syntax, such as a variable or a pipe."""
    return bool(re.search(r"[$|;<>*`(]", text))


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
    command = shlex.split(command[0]) if len(command) == 1 else command
    words = [word for word in command if word not in _RUNNERS and re.match(r"[a-z]", word) and " " not in word]
    return as_name(words[0].partition(".")[0]) if words else "prepare"
