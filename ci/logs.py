"""Logs of all services of a stack, merged in order of time: `python -m ci.logs STACK [SERVICE] [SLOT] [SINCE] [FOLLOW]`.

The command polls the logs of all containers, instead of opening a stream for each container. Polling also shows
containers that a release starts later, and works the same on both platforms.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator

from pulumi import RunError

from components import platforms
from components.platforms import Line
from components.platforms.inventory import locate
from components.release import checkpoint
from components.release.planner import Slot

from . import command_line
from .pulumi_stack import state

PAUSE = 1.0
"""Seconds between two reads of the logs."""
_OVERLAP = 2.0
"""Seconds by which consecutive reads of the logs overlap, because log lines may arrive late."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
"""Foreground colours of a terminal (ECMA-48), one for each service."""


def main(stack: str, service: str = "", slot: str = "", since: str = "", follow: str = "") -> None:
    """Print the log lines of a stack.

    Args:
        stack: name of the stack.
        service: name of the service; empty for all services.
        slot: `blue`, `green`, `live` or `idle`; empty for both slots and the shared services.
        since: maximum age of the lines, as in `10m`; empty for ten minutes.
        follow: `no` prints only the lines that exist now. Any other value also prints new lines, until Ctrl-C.

    Raises:
        RunError: nothing is deployed, or the stack has no such service.
    """
    exported = state(stack)
    location = locate(exported, stack)
    parsed = checkpoint.parse(exported)
    if not location:
        raise RunError(f"nothing is deployed on stack {stack}; run `make up ENV={stack}`")
    services = sorted({str(entry.tier) for entry in parsed.entries if entry.runs and entry.tier} | {"gateway"})
    if service and service not in services:
        raise RunError(f"SERVICE: {stack} has no service {service}; use one of {', '.join(services)}")
    selected_slot = parse_slot(slot, checkpoint.observe(parsed).live)

    def is_shown(line: Line) -> bool:
        return (not service or line.tier == service) and (not selected_slot or line.slot == selected_slot)

    inspector = platforms.inspector_at(location)
    print_line = printer(services, is_coloured=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    try:
        for line in new_lines(inspector.log_lines, time.time() - parse_age(since), follows=follow != "no"):
            if is_shown(line):
                print_line(line)
    except KeyboardInterrupt:
        return


def parse_slot(slot: str, live: Slot | None) -> Slot | None:
    """Convert the make variable SLOT to a slot. Return None if it is empty.

    Args:
        slot: `blue`, `green`, `live`, `idle` or an empty text.
        live: the live slot; None if no slot is live.

    Raises:
        RunError: `slot` is `live` or `idle`, but no slot is live.
    """
    if slot in ("live", "idle"):
        if not live:
            raise RunError(f"SLOT: no slot is live, so there is no {slot} slot; use blue or green")
        return live if slot == "live" else live.other
    return Slot(slot) if slot else None


def parse_age(text: str) -> float:
    """Convert an age such as `10m` to seconds. An empty text means ten minutes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text or "10m")
    if not match:
        raise RunError(f"SINCE: {text!r:.40} is not an age; write it like 30s, 10m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]


def new_lines(
    read: Callable[[float], Iterator[Line]],
    begin: float,
    *,
    follows: bool,
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[Line]:
    """Yield log lines in order of time, each once.

    Args:
        read: function that yields the lines since a time (seconds since 1970), in any order.
        begin: time of the first line, in seconds since 1970.
        follows: True to go on with new lines, until the caller stops.
        pause: function that sleeps for a number of seconds.
    """
    shown: set[Line] = set()
    while True:
        started = time.time()
        lines = sorted(set(read(begin)))
        yield from (line for line in lines if line not in shown)
        if not follows:
            return
        # Remember only the lines of this read, because the next read can repeat only lines of the overlap.
        shown, begin = set(lines), started - _OVERLAP
        pause(PAUSE)


def printer(services: list[str], *, is_coloured: bool) -> Callable[[Line], None]:
    """Return a function that prints a line with time, service and slot. Each service has its own colour."""
    width = max(map(len, services), default=0)
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(services)}

    def print_line(line: Line) -> None:
        origin = f"{line.tier:<{width}} {line.slot:<5}"
        if is_coloured:
            origin = f"\x1b[{colours.get(line.tier, 37)}m{origin}\x1b[0m"
        print(f"{line.when[11:23]} {origin} {line.text}", flush=True)

    return print_line


if __name__ == "__main__":
    words = command_line.arguments("logs STACK [SERVICE] [SLOT] [SINCE] [FOLLOW]", 1, 5)
    command_line.run_and_exit("logs", lambda: main(*words))
