"""The command line. Each module holds a few commands and imports what they need when they run."""

import gc
import sys


def main() -> None:
    """Run the command that the arguments name, then end the process with its exit code."""
    # Modules stay: to look for garbage among them, hundreds of times, would take a tenth of the start.
    gc.set_threshold(50_000, 20, 50)
    from casekeeper.cli.app import run

    sys.exit(run(sys.argv[1:]))
