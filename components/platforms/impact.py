"""Say what a failure means for users. The live slot is asked, and the sentence repeats its answer: nothing is taken for granted."""

import http.client
import ssl
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from ..checkpoint import Checkpoint, observe
from ..release import Slot
from . import SLOT_HEADER, readiness

WITHIN = 5
"""Seconds that an answer may take."""


def describe(live: Slot | None, url: str, paths: Sequence[str], ready: Callable[[], bool]) -> str:
    """Return the sentence for an error: the answers of the live slot, to users and to the gateway's own questions.

    Args:
        live: the slot that was live when the update began; None if nothing was.
        url: the address that users open.
        paths: paths on which the gateway answers for one tier each, for requests that name the slot.
        ready: the platform's own opinion of the live slot, for a gateway that can't be reached from here.
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
    """Return the paths on which the gateway answers for the routed tiers of a slot."""
    held = observe(checkpoint).held.get(slot)
    return [readiness(route) for route in held.release.routes] if held else []


def _by_platform(live: Slot, url: str, ready: Callable[[], bool], why: str) -> str:
    try:
        well = ready()
    except Exception as error:
        return f"live ({live}) could not be asked: {url}: {why}; {' '.join(str(error).split())[:200]}"
    if well:
        return f"what is live was not touched: {live} is ready ({url} can't be reached from here: {why})"
    return f"live ({live}) is not ready, and {url} does not answer: {why}"


def _ask(url: str, path: str, slot: str) -> tuple[int, str]:
    """Return the status of a path, and the slot that answered."""
    parts = urlsplit(url)
    # Names below localhost are this machine (RFC 6761), also where the resolver does not know them.
    host = "127.0.0.1" if (parts.hostname or "").endswith(".localhost") else parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        # Only the status counts: a certificate that this machine does not know is no answer of the slot.
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
