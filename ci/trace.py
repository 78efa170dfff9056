"""Trace of a request through all tiers and both slots, in order of time: `python -m ci.trace STACK ID`.

A log line belongs to the request if it is JSON with that `request_id`, or contains the id anywhere. PostgreSQL writes
plain text, which contains the id if an application adds it to its statements (examples/board/api/board/logs.py).
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, cast

from pulumi import RunError

from components import platforms
from components.platforms import Line

from . import edge
from .described import load

_SAID = ("message", "method", "path", "status", "level")
"""Fields of a line that are printed first, in this order."""
_KNOWN = {"time", "request_id", "release", "slot", *_SAID}


def main(stack: str, request: str) -> None:
    if not request:
        raise RunError("ID is not given; take it from the header X-Request-Id of a response: `make trace ID=…`")
    app, environment = load(stack)
    lines = sorted(about(request, platforms.lines(app, environment, stack)))
    if not lines:
        raise RunError(
            f"no line on stack {stack} is about {request}: logs rotate, and go with the containers of a release that has left"
        )
    for line in lines:
        print(told(line))


def about(request: str, lines: Iterable[Line]) -> Iterator[Line]:
    """Yield the lines that belong to a request."""
    for line in lines:
        if request in line.text and _fields(line).get("request_id", request) == request:
            yield line


def told(line: Line) -> str:
    """Return a line for people: time, place, message, and the other fields by name."""
    fields = _fields(line)
    parts = [str(fields[key]) for key in _SAID if key in fields] or [line.text]
    parts += [f"{key}={value}" for key, value in fields.items() if key not in _KNOWN]
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
    words = edge.arguments("trace STACK ID", 1, 2)
    edge.end("trace", lambda: main(words[0], *words[1:] or [""]))
