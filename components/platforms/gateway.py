"""Contract of the gateway on both platforms: the header and the cookie that select a slot, and the paths for readiness checks.

This module also lists the requests of the smoke test. The module `toolbox` sends these requests.
"""

import json
from collections.abc import Sequence
from typing import Any

from ..config import GATEWAY_PATHS, App, at_host, checks_as_json
from ..model.workload import Route

SLOT_HEADER = "X-Tiers-Slot"
"""Name of the header with which a request selects a slot. In a response the header names the slot that answered."""
COOKIE = "tiers-release"
"""Name of the cookie that the response of a page sets. With this cookie, later requests of the page reach the page's release."""


def readiness(route: Route) -> str:
    """Return the gateway path for a readiness check of a tier.

    If a request has `SLOT_HEADER`, the gateway replaces this path with the tier's health path.
    """
    return f"{GATEWAY_PATHS}/{route.tier}"


def route_url(url: str, route: Route) -> str:
    """Return the address at which users open a tier: `url`, or `url` with the tier's own host."""
    return at_host(url, route.host) if route.host else url


def smoke_checks(app: App, routes: Sequence[Route]) -> str:
    """Return the requests of the smoke test as JSON: the readiness of each tier, then `app.checks`.

    Each request has a name for error messages: its configuration key and its path. A request to a service with a host of its own
    has this host. All other requests go to the host that users open.
    """
    requests: list[dict[str, Any]] = []
    for route in routes:
        settings = app.listening.get(route.tier)
        key = "ready" if settings and settings.ready else "health"
        host = {"host": route.host} if route.host else {}
        requests.append({"name": f"{app.path(route.tier)}.{key}: {route.health}", "path": readiness(route), **host})
    return json.dumps(requests + checks_as_json(app.checks))
