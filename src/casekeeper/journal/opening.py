"""What every room that changes something works with."""

from casekeeper.clock import Clock
from casekeeper.journal.commits import Commits
from casekeeper.journal.feed import LiveFeed
from casekeeper.journal.requests import Requests
from casekeeper.paging import Cursors
from casekeeper.values import value


@value
class Journal:
    """Where it writes and which repeats it answers, how it pages, what time it is, and who hears of facts at once."""

    commits: Commits
    requests: Requests
    cursors: Cursors
    clock: Clock
    live: LiveFeed
