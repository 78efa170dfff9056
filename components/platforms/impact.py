"""Effect of a failure on users, for error messages. The live slot is probed; its answer is reported, never assumed."""

import http.client
import ssl
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from ..checkpoint import Checkpoint, observe
from ..release import Slot
from . import SLOT_HEADER, readiness

WITHIN = 5
"""Timeout of a probe in seconds."""


def describe(live: Slot | None, url: str, paths: Sequence[str], ready: Callable[[], bool]) -> str:
    """Return the sentence for an error: the responses of the live slot to users' requests and to readiness probes.

    Args:
        live: the slot that was live when the update began; None if none was.
        url: the address that users open.
        paths: readiness paths of the gateway, one for each tier, for requests that name the slot.
        ready: tells whether the platform calls the live slot ready, for a gateway that can't be reached from this
            machine.
    """
    if live is None:
        return "nothing was live"
    try:
        status, served = _ask(url, "/", "")
        answers = [(path, *_ask(url, path, live)) for path in paths]
    except (OSError, http.client.HTTPException) as error:
        return _by_platform(live, url, ready, str(error) or type(error).__name__)
    if served not in ("", live):
        return f"users get answers of {served}, and {live} was live"
    wrong = next(((path, code) for path, code, _ in answers if code >= 400), None)
    if status >= 400:
        wrong = ("/", status)
    if wrong:
        return f"live ({live}) answers {wrong[1]} at {wrong[0]}"
    return f"what is live was not touched: {live} answers {status}"


def paths(checkpoint: Checkpoint, slot: Slot) -> list[str]:
    """Return the readiness paths of the gateway for the routed tiers of a slot."""
    slot_state = observe(checkpoint).held.get(slot)
    return [readiness(route) for route in slot_state.release.routes] if slot_state else []


def _by_platform(live: Slot, url: str, ready: Callable[[], bool], why: str) -> str:
    try:
        healthy = ready()
    except Exception as error:
        return f"live ({live}) could not be asked: {url}: {why}; {' '.join(str(error).split())[:200]}"
    if healthy:
        return f"what is live was not touched: {live} is ready ({url} can't be reached from here: {why})"
    return f"live ({live}) is not ready, and {url} does not answer: {why}"


def _ask(url: str, path: str, slot: str) -> tuple[int, str]:
    """Request a path and return its status and the slot that answered."""
    parts = urlsplit(url)
    # Names below localhost resolve to this machine (RFC 6761), even if the resolver does not know them.
    host = "127.0.0.1" if (parts.hostname or "").endswith(".localhost") else parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        # Only the status counts. A certificate that this machine does not trust says nothing about the slot.
        context = ssl._create_unverified_context()  # noqa: S323 # pyright: ignore[reportPrivateUsage]
        connection = http.client.HTTPSConnection(host, parts.port, timeout=WITHIN, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=WITHIN)
    try:
        connection.request("GET", path, headers={"Host": parts.netloc, **({SLOT_HEADER: slot} if slot else {})})
        answer = connection.getresponse()
        return answer.status, answer.headers.get(SLOT_HEADER, "")
    finally:
        connection.close()
