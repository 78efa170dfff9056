"""Runner of the make targets: `python -m ci TARGET [NAME=value …]` (docs/adr/023-one-runner-behind-make.md)."""

import os
import signal
import sys

from . import command_line, commands, process
from .make_call import parse

if __name__ == "__main__":
    if "MAKELEVEL" in os.environ:
        # If make is killed, the kernel then sends SIGTERM to this process, so Pulumi can end its update cleanly.
        process.end_with_parent(signal.SIGTERM)
    target = sys.argv[1] if len(sys.argv) > 1 else "ci"
    process.undo_when_stopped(target)
    command_line.run_and_exit(target, lambda: commands.main(parse(sys.argv[1:], os.environ)))
