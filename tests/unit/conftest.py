"""Settings of hypothesis for the unit tests: few examples per property, because the whole suite must end within ten seconds.

TIERS_FUZZ is the number of examples: `make fuzz` tries thousands.
"""

import gc
import os

from hypothesis import settings

settings.register_profile("quick", max_examples=int(os.environ.get("TIERS_FUZZ") or 50), deadline=None)
settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """Freeze the objects that exist after collection: scanning them for garbage again and again took an eighth of the time."""
    gc.collect()
    gc.freeze()
