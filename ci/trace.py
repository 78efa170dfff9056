"""Trace of a request through all tiers and both slots, in order of time: `python -m ci.trace STACK ID`.

A log line belongs to the request if the line contains the id. JSON lines with another `request_id` are left out.
PostgreSQL logs the id if the application adds the id to its SQL statements (examples/board/api/board/logs.py).
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, cast

from pulumi import RunError

from components import platforms
from components.platforms import Line

from . import command_line
from .pulumi_stack import load

_FIRST_FIELDS = ("message", "method", "path", "status", "level")
"""Fields of a line that are printed first, in this order."""
_PRINTED_FIELDS = {"time", "request_id", "release", "slot", *_FIRST_FIELDS}


def main(stack: str, request: str) -> None:
    if not request:
        raise RunError("ID is missing; use the header X-Request-Id of a response: `make trace ID=…`")
    app, environment = load(stack)
    lines = sorted(lines_of_request(request, platforms.inspector(app, environment, stack).log_lines()))
    if not lines:
        raise RunError(
            f"no log line of stack {stack} has the id {request}; use the id of a newer request, because old log lines are deleted with their containers and by log rotation"
        )
    for line in lines:
        print(format_line(line))


def lines_of_request(request: str, lines: Iterable[Line]) -> Iterator[Line]:
    """Yield the lines that belong to a request."""
    for line in lines:
        if request in line.text and _fields(line).get("request_id", request) == request:
            yield line


def format_line(line: Line) -> str:
    """Format a log line: time, tier, slot, release, message, and all other fields with their names."""
    fields = _fields(line)
    parts = [str(fields[key]) for key in _FIRST_FIELDS if key in fields] or [line.text]
    parts += [f"{key}={value}" for key, value in fields.items() if key not in _PRINTED_FIELDS]
    origin = f"{line.tier:<9} {line.slot or fields.get('slot', ''):<6} {line.release or fields.get('release', ''):<20}"
    return f"{line.when[11:23]}  {origin} {' '.join(parts)}".rstrip().replace("\n", "\n    ")


def _fields(line: Line) -> dict[str, Any]:
    """Return the fields of a JSON line, or an empty mapping."""
    try:
        fields: object = json.loads(line.text)
    except ValueError:
        return {}
    return cast(dict[str, Any], fields) if isinstance(fields, dict) else {}


if __name__ == "__main__":
    words = command_line.arguments("trace STACK ID", 1, 2)
    command_line.run_and_exit("trace", lambda: main(words[0], *words[1:] or [""]))
