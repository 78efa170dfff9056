"""The paths of requests as the gateway compares them: percent-decoded, slashes merged, dot segments resolved.

The gateway's own rules (`platforms.haproxy`) do the same to a request's path, step by step; docs/adr/024 has the reasons.
"""

import re
from urllib.parse import unquote_to_bytes

_NO_CODE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def normalise(path: str) -> bytes:
    """Return a path as it is compared, with a slash at its end: a path lies below another if it begins with that."""
    parts: list[bytes] = []
    # A `%` that begins no code stays one character: all steps keep a path's length or shorten it.
    for part in unquote_to_bytes(_NO_CODE.sub("!", path)).split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"".join(b"/" + part for part in parts) + b"/"


def covers(prefix: str, path: str) -> bool:
    """Tell if `path` is `prefix` or lies below it: `/api` covers `/api/x`, and not `/apiary`."""
    return normalise(path).startswith(normalise(prefix))
