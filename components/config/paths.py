"""Compare URL paths as the gateway does: percent-decoded, with slashes merged and dot segments resolved.

The rules of the gateway (`platforms.docker.haproxy`) normalise the path of a request in the same steps. docs/adr/024 gives the
reasons.
"""

import re
from urllib.parse import unquote_to_bytes

_NO_CODE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def normalise(path: str) -> bytes:
    """Return the normal form of a path, with a slash at its end. It begins with the normal form of each parent path."""
    parts: list[bytes] = []
    # Replace each `%` without two hexadecimal digits by `!`, because such a `%` must not be decoded.
    for part in unquote_to_bytes(_NO_CODE.sub("!", path)).split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"".join(b"/" + part for part in parts) + b"/"


def covers(prefix: str, path: str) -> bool:
    """Return whether `path` is `prefix` or below it: `/api` covers `/api/x`, but not `/apiary`."""
    return normalise(path).startswith(normalise(prefix))
