"""Paths of requests as the gateway compares them: percent-decoded, slashes merged, dot segments resolved.

The gateway's own rules (`platforms.haproxy`) normalise a request's path with the same steps; docs/adr/024 has the reasons.
"""

import re
from urllib.parse import unquote_to_bytes

_NO_CODE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def normalise(path: str) -> bytes:
    """Return a path in the compared form, with a slash at its end. A path is below another one if it begins with that one."""
    parts: list[bytes] = []
    # A `%` without a code becomes one other character, so no step lengthens a path.
    for part in unquote_to_bytes(_NO_CODE.sub("!", path)).split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"".join(b"/" + part for part in parts) + b"/"


def covers(prefix: str, path: str) -> bool:
    """Tell whether `path` is `prefix` or below it: `/api` covers `/api/x`, but not `/apiary`."""
    return normalise(path).startswith(normalise(prefix))
