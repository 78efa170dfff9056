"""The worker tier: takes jobs from a queue. Nothing connects to it."""

from pulumi import ResourceOptions

from .platforms import Platform
from .tier import SlotTier, TierArgs


class Worker(SlotTier):
    """The worker tier of one slot."""

    def __init__(self, name: str, platform: Platform, args: TierArgs, opts: ResourceOptions) -> None:
        super().__init__("tiers:worker:Worker", name, platform, args, opts)
