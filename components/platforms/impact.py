"""Effect of a failed update on users, for error messages. The module probes the live slot and reports the response."""

import http.client
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

from ..release.checkpoint import Checkpoint, observe
from ..release.planner import Slot
from .base import Inspector
from .gateway import SLOT_HEADER, readiness, route_url

WITHIN = 5
"""Timeout of a probe in seconds."""


def describe_live(live: Slot | None, url: str, checkpoint: Checkpoint, inspector: Inspector) -> str:
    """Probe the slot that was live when the update began, and describe the effect of a failed update on users."""
    if live is None:
        return describe(None, url, (), lambda: False)
    return describe(live, url, readiness_urls(checkpoint, live, url), partial(inspector.is_ready, live))


def describe(live: Slot | None, url: str, urls: Sequence[str], ready: Callable[[], bool]) -> str:
    """Probe the live slot through the gateway, and describe the effect of a failed update on users.

    Args:
        live: the slot that was live when the update began; None if no slot was live.
        url: address that users open.
        urls: addresses at the gateway that report the readiness of the live slot's tiers.
        ready: function that returns True if the platform reports the live slot as ready, called only if this machine
            can't connect to the gateway.
    """
    if live is None:
        return "no slot was live before"
    try:
        status, served = _get(f"{url}/", "")
        answers = [(address.removeprefix(url), *_get(address, live)) for address in urls]
    except (OSError, http.client.HTTPException) as error:
        return _by_platform(live, url, ready, str(error) or type(error).__name__)
    if served not in ("", live):
        return f"users get responses from slot {served}, but slot {live} was live"
    wrong = next(((address, code) for address, code, _ in answers if code >= 400), None)
    if status >= 400:
        wrong = ("/", status)
    if wrong:
        return f"the live slot ({live}) answers {wrong[1]} at {wrong[0]}"
    return f"the live slot was not changed: {live} answers {status}"


def readiness_urls(checkpoint: Checkpoint, slot: Slot, url: str) -> list[str]:
    """Return the addresses at the gateway that report the readiness of the routed tiers in a slot. Users open `url`."""
    slot_state = observe(checkpoint).slots.get(slot)
    return [route_url(url, route) + readiness(route) for route in slot_state.release.routes] if slot_state else []


def _by_platform(live: Slot, url: str, ready: Callable[[], bool], why: str) -> str:
    try:
        healthy = ready()
    except Exception as error:
        return f"the live slot ({live}) could not be probed: {url}: {why}; {' '.join(str(error).split())[:200]}"
    if healthy:
        return f"the live slot was not changed: {live} is ready ({url} can't be reached from here: {why})"
    return f"the live slot ({live}) is not ready, and {url} does not answer: {why}"


def _get(url: str, slot: str) -> tuple[int, str]:
    """Send a GET request. Return the HTTP status and the slot that answered (empty if the response names no slot)."""
    parts = urlsplit(url)
    # Use 127.0.0.1 for names below `localhost`: some resolvers don't resolve such names of this machine (RFC 6761).
    host = "127.0.0.1" if (parts.hostname or "").endswith(".localhost") else parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        # Don't verify the certificate: a slot with an untrusted certificate may still serve users, so only the status counts.
        context = ssl._create_unverified_context()  # noqa: S323 # pyright: ignore[reportPrivateUsage]
        connection = http.client.HTTPSConnection(host, parts.port, timeout=WITHIN, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=WITHIN)
    try:
        connection.request("GET", parts.path, headers={"Host": parts.netloc, **({SLOT_HEADER: slot} if slot else {})})
        answer = connection.getresponse()
        return answer.status, answer.headers.get(SLOT_HEADER, "")
    finally:
        connection.close()
