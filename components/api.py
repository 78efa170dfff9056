"""The api tier: the application's HTTP interface."""

from pulumi import ResourceOptions

from .platforms import Platform
from .tier import SlotTier, TierArgs


class Api(SlotTier):
    """The api tier of one slot."""

    def __init__(self, name: str, platform: Platform, args: TierArgs, opts: ResourceOptions) -> None:
        super().__init__("tiers:api:Api", name, platform, args, opts)
