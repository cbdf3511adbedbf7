"""Opens the room WHERE: access to casefiles, and changes of them and of their access lists."""

from casekeeper.acl_feed import Stops
from casekeeper.casefiles.access import Gate
from casekeeper.casefiles.casefile import CasefileStore
from casekeeper.casefiles.changing import Changing
from casekeeper.casefiles.commands import Casefiles
from casekeeper.casefiles.freshness import Freshness
from casekeeper.casefiles.grants import FreshGrants, StoredGrants
from casekeeper.casefiles.permissions import Permissions
from casekeeper.identity.accounts import AccountStore
from casekeeper.journal.opening import Journal
from casekeeper.values import value


@value
class CasefileRoom:
    """Casefiles, and who may enter them."""

    store: CasefileStore
    freshness: Freshness
    stored: StoredGrants
    gate: Gate
    changing: Changing
    commands: Casefiles
    permissions: Permissions


def open_casefiles(
    journal: Journal,
    store: CasefileStore,
    accounts: AccountStore,
    freshness: Freshness,
    stops: Stops,
    *,
    with_tags: bool = False,
    everybody_creates: bool = True,
) -> CasefileRoom:
    """The room. `with_tags`: what is let in depends on the tags of casefiles, so they are read with the grants."""
    commits, requests, clock = journal.commits, journal.requests, journal.clock
    stored = StoredGrants(store, clock)
    gate = Gate(FreshGrants(stored, freshness, clock, with_tags=with_tags), store, commits, clock)
    changing = Changing(gate, store, commits, requests, clock)
    commands = Casefiles(
        gate,
        changing,
        store,
        commits,
        requests,
        stops,
        journal.cursors,
        clock,
        everybody_creates=everybody_creates,
    )
    permissions = Permissions(gate, changing, commands, store, accounts, stops, journal.cursors, clock)
    return CasefileRoom(store, freshness, stored, gate, changing, commands, permissions)
