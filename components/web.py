"""The web tier: pages and static assets."""

from dataclasses import dataclass

from .service import SlotService, SlotServiceArgs


@dataclass(frozen=True, kw_only=True)
class WebArgs(SlotServiceArgs):
    """Arguments of `Web`, the same as those of `SlotService`."""


class Web(SlotService):
    """Deploy the web tier of one slot: pages and static assets.

    The gateway routes requests to the web tier of the live slot, except requests for the paths of the api. Deploying the web
    tier of the idle slot moves no traffic.

    Args:
        name: resource name, which is part of the state.
        args: see `WebArgs`.
        opts: options of the component.

    Example:
        web = Web("green-web", WebArgs(platform=platform, workload=workload, target=target, scale=Scale(replicas=2)))
    """
