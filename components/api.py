"""The api tier: the application's HTTP interface."""

from dataclasses import dataclass

from .service import SlotService, SlotServiceArgs


@dataclass(frozen=True, kw_only=True)
class ApiArgs(SlotServiceArgs):
    """Arguments of `Api`, the same as those of `SlotService`."""


class Api(SlotService):
    """Deploy the api tier of one slot: the application's HTTP interface.

    The gateway routes requests for `app.api.paths` to the api of the live slot. Deploying the api of the idle slot moves no
    traffic.

    Args:
        name: resource name, which is part of the state.
        args: see `ApiArgs`.
        opts: options of the component.

    Example:
        api = Api("green-api", ApiArgs(platform=platform, workload=workload, target=target, scale=Scale(replicas=2)))
    """
