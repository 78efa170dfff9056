"""Settings for the unit tests.

Hypothesis tries 50 examples of each property, which keeps the suite fast. The environment variable TIERS_FUZZ sets
another number of examples.
"""

import gc
import os

from hypothesis import settings

settings.register_profile("quick", max_examples=int(os.environ.get("TIERS_FUZZ") or 50), deadline=None)
settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """Make the garbage collector ignore all objects that exist before the first test runs.

    Otherwise each garbage collection would scan these objects. The scans took an eighth of the suite's run time.
    """
    gc.collect()
    gc.freeze()
