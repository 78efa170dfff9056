"""The api tier: the HTTP interface."""

from pulumi import ResourceOptions

from .platforms import Platform
from .tier import SlotTier, TierArgs


class Api(SlotTier):
    """The api of one slot."""

    def __init__(self, name: str, platform: Platform, args: TierArgs, opts: ResourceOptions) -> None:
        super().__init__("tiers:api:Api", name, platform, args, opts)
