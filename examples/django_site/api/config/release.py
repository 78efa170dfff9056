"""Which release this is, and in which slot."""

import os

RELEASE = os.environ.get("RELEASE", "unreleased")
SLOT = os.environ.get("SLOT", "none")


def context(request) -> dict[str, str]:
    """For every template."""
    return {"release": RELEASE, "slot": SLOT}
