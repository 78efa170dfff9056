"""Commands in a running container of a service: `make exec SERVICE=api CMD="…"` and `make console SERVICE=api`.

`python -m ci.container STACK SERVICE CMD [SLOT]` does the same as `make exec`.
"""

import shlex
import sys
from typing import NoReturn

from pulumi import RunError

from components import platforms
from components.release import checkpoint

from . import command_journal, command_line, process
from .command_journal import Entry
from .logs import parse_slot
from .pulumi_stack import load, state


def execute(stack: str, service: str, command: str, slot: str = "") -> NoReturn:
    """Run a command in a container of a service. This process ends with the command's exit code.

    Args:
        stack: name of the stack.
        service: name of the service.
        command: the command with its arguments, quoted as in a shell. No shell runs the command.
        slot: `blue`, `green`, `live` or `idle`; empty for the live slot.

    Raises:
        RunError: the service is unknown or has no running container, or the command is empty.
    """
    _run(stack, service, parse_command(command), slot)


def parse_command(command: str) -> list[str]:
    """Split the make variable CMD into words, as a shell does.

    Raises:
        RunError: the command is empty, or a quotation mark is not closed.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise RunError(f"CMD: {error}; close the quotation mark") from None
    if not words:
        raise RunError('CMD is missing; set CMD to the command, as in CMD="alembic current"')
    return words


def console(stack: str, service: str, slot: str = "") -> NoReturn:
    """Run the console of a service in its container. The console is the command `app.SERVICE.console`, or psql for the database.

    Raises:
        RunError: the service is unknown, or has no running container.
    """
    _run(stack, service, None, slot)


def _run(stack: str, service: str, words: list[str] | None, slot: str) -> NoReturn:
    """Run a command in a container of a service, or the service's console if `words` is None."""
    app, environment = load(stack)
    if not service or service not in app.names:
        raise RunError(
            f"SERVICE: the application has no service {service!r:.40}; use one of {', '.join(sorted(app.names))}"
        )
    live = checkpoint.observe(checkpoint.parse(state(stack))).live
    of_slot = None
    if service in app.slot_services and not (of_slot := parse_slot(slot or "live", live)):
        raise RunError(f"nothing is live on stack {stack}; run `make up ENV={stack}`")
    inspector = platforms.inspector(app, environment, stack)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    command = app.described[service].console if words is None else words
    line = inspector.command_in(service, of_slot, command, terminal=terminal)
    command_journal.record(stack, Entry.of("console" if words is None else "exec", service, of_slot, words or ()))
    process.exec_command(line)


if __name__ == "__main__":
    words = command_line.arguments("container STACK SERVICE CMD [SLOT]", 3, 4)
    command_line.run_and_exit("exec", lambda: execute(*words))
