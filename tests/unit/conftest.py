"""The whole unit suite is to come under ten seconds: properties are tried with fewer examples than hypothesis would.

TIERS_FUZZ is how many of them: `make fuzz` tries thousands.
"""

import gc
import os

from hypothesis import settings

settings.register_profile("quick", max_examples=int(os.environ.get("TIERS_FUZZ") or 50), deadline=None)
settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """What is there by now stays: to look through it for garbage again and again took an eighth of the time."""
    gc.collect()
    gc.freeze()
