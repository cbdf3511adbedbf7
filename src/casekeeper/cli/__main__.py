"""`python -m casekeeper.cli`."""

from casekeeper.cli import main

main()
