"""Commands in a new container of a service: `make run SERVICE=api CMD="…"`.

The container has the settings of the service's containers in the live slot, and is removed when the command ends.

`make run JOB=digest` runs the command of a scheduled job. `python -m ci.one_off STACK SERVICE CMD [SLOT]` and `python -m ci.one_off STACK JOB` do
the same.
"""

import shlex
import sys

from pulumi import RunError

from components import platforms
from components.platforms import OneOff
from components.release import checkpoint

from . import command_journal, command_line, process
from .command_journal import Entry
from .container import parse_command
from .logs import parse_slot
from .pulumi_stack import load, state


def run(stack: str, service: str, command: str, slot: str = "") -> int:
    """Run a command in a new container of a service, and return the command's exit code.

    Args:
        stack: name of the stack.
        service: name of a service that runs in slots.
        command: the command with its arguments, quoted as in a shell. No shell runs the command.
        slot: `blue`, `green`, `live` or `idle`; empty for the live slot.

    Raises:
        RunError: the service is unknown, is not in a slot or is not deployed, or the command is empty or does not start.
        SystemExit: this process was stopped.
        KeyboardInterrupt: the user interrupted the command.
    """
    words = parse_command(command)
    app, environment = load(stack)
    if service not in app.slot_services:
        fix = f"use one of {', '.join(sorted(app.slot_services))}"
        if service in app.names:
            raise RunError(
                f"SERVICE: a second {service} would use the data of the first, so `make run` can't start one; {fix}, or `make exec SERVICE={service}`"
            )
        raise RunError(f"SERVICE: the application has no service {service!r:.40}; {fix}")
    of_slot = parse_slot(slot or "live", checkpoint.observe(checkpoint.parse(state(stack))).live)
    if not of_slot:
        raise RunError(f"nothing is live on stack {stack}; run `make up ENV={stack}`")
    # Closing the terminal must not skip the removal of the container.
    process.undo_when_stopped("run")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    inspector = platforms.inspector(app, environment, stack)
    command_journal.record(stack, Entry.of("run", service, of_slot, words))
    with inspector.one_off(environment, service, of_slot, words, terminal=terminal) as one_off:
        # Print to standard error, because standard output may be a file for the output of the command.
        print(f"  {one_off.name}: release {one_off.release} of {service} in slot {of_slot}", file=sys.stderr)
        return _follow(one_off)


def run_job(stack: str, name: str, slot: str = "") -> int:
    """Run the command of a scheduled job now, in a new container of its service. Return the command's exit code.

    The command comes from `app.jobs`, and all settings come from the live release. The run does not count as a run at a due time.

    Args:
        stack: name of the stack.
        name: name of the job.
        slot: slot of the settings, as for `run`.

    Raises:
        RunError: the application has no such job; also the errors of `run`.
    """
    app, _ = load(stack)
    job = app.jobs.get(name)
    if not job:
        fix = f"use one of {', '.join(sorted(app.jobs))}" if app.jobs else "add the job to app.jobs"
        raise RunError(f"JOB: the application has no job {name!r:.40}; {fix}")
    return run(stack, job.service, shlex.join(job.command), slot)


def _follow(one_off: OneOff) -> int:
    """Print the output of a command until it ends, and return its exit code."""
    before = one_off.printed()
    print(before, end="")
    code = process.attach(one_off.attach, one_off.feed)
    if code:
        # The client could not connect, because the command had ended.
        print(one_off.printed().removeprefix(before), end="")
    return one_off.exit_code(code)


if __name__ == "__main__":
    words = command_line.arguments("one_off STACK SERVICE CMD [SLOT], or one_off STACK JOB", 2, 4)
    command_line.run_and_exit("run", lambda: run_job(*words) if len(words) == 2 else run(*words))
