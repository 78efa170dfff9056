"""Repair of the gateway's configuration before an update. With an invalid configuration the gateway can't restart."""

import sys

from pulumi import RunError

from components import platforms
from components.config import ConfigError
from components.release.checkpoint import parse

from .pulumi_stack import load, state


def main(stack: str) -> None:
    """Repair the gateway of a stack. Do nothing if the application's files are invalid: the update reports the error."""
    try:
        app, environment = load(stack)
    except ConfigError:
        return
    inspector = platforms.inspector(app, environment, stack)
    try:
        repaired = inspector.repair_gateway(environment, lambda: parse(state(stack)))
    except RunError as error:
        print(f"  the gateway's configuration could not be repaired: {error}", file=sys.stderr)
        return
    if repaired:
        print(f"  rewrote the gateway's configuration of {stack}, because the gateway could not start with the old one")
