"""Release and slot of this process."""

import os

RELEASE = os.environ.get("RELEASE", "unreleased")
SLOT = os.environ.get("SLOT", "none")


def context(request) -> dict[str, str]:
    """Return the variables that every template can use."""
    return {"release": RELEASE, "slot": SLOT}
