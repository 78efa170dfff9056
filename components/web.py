"""The web tier: pages and static assets."""

from pulumi import ResourceOptions

from .platforms import Platform
from .tier import SlotTier, TierArgs


class Web(SlotTier):
    """The web tier of one slot."""

    def __init__(self, name: str, platform: Platform, args: TierArgs, opts: ResourceOptions) -> None:
        super().__init__("tiers:web:Web", name, platform, args, opts)
