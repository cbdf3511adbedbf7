"""The journal, as every room that changes something uses it."""

from casekeeper.clock import Clock
from casekeeper.journal.commits import Commits
from casekeeper.journal.feed import LiveFeed
from casekeeper.journal.requests import Requests
from casekeeper.paging import Cursors
from casekeeper.values import value


@value
class Journal:
    """Commits, repeated requests, cursors of pages, the clock, and live notifications of new facts."""

    commits: Commits
    requests: Requests
    cursors: Cursors
    clock: Clock
    live: LiveFeed
