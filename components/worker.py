"""The worker tier: takes jobs from the queue; nothing connects to it."""

from pulumi import ResourceOptions

from .platforms import Platform
from .tier import SlotTier, TierArgs


class Worker(SlotTier):
    """The worker of one slot."""

    def __init__(self, name: str, platform: Platform, args: TierArgs, opts: ResourceOptions) -> None:
        super().__init__("tiers:worker:Worker", name, platform, args, opts)
