"""The command line. Each module holds a few commands and imports what they need when they run."""

import sys


def main() -> None:
    """Run the command that the arguments name, then end the process with its exit code."""
    from casekeeper.cli.app import run

    sys.exit(run(sys.argv[1:]))
