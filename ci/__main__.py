"""Entry point of every make target: `python -m ci TARGET [NAME=value …]`. docs/adr/023-one-runner-behind-make.md"""

import os
import signal
import sys

from . import commands, edge, process
from .call import parse

if __name__ == "__main__":
    if "MAKELEVEL" in os.environ:
        # A killed make can't forward its signal. The kernel then sends SIGTERM, and Pulumi's update ends in order.
        process.end_with_parent(signal.SIGTERM)
    target = sys.argv[1] if len(sys.argv) > 1 else "ci"
    process.undo_when_stopped(target)
    edge.end(target, lambda: commands.main(parse(sys.argv[1:], os.environ)))
