"""Which locks, partitions and queues follow from what a commit says that it is about."""

from collections.abc import Sequence

import pytest

from casekeeper.acl_feed import ANY
from casekeeper.casefiles.casefile import CasefileIsActive, CasefileIsAt, Fence, RemoveGrant
from casekeeper.clock import utc_now
from casekeeper.identity.accounts import AccountStands, EndRefreshFamilies
from casekeeper.identity.credentials import ApiKey, PutKey
from casekeeper.ids import new_key_id
from casekeeper.journal.commits import About, Commit, Condition, PermissionChanged, Record
from casekeeper.journal.requests import Claim
from casekeeper.sessions.session import SessionIsOpen
from casekeeper.storage.firestore.queues import queue_of
from casekeeper.storage.postgres.locks import Locks, lock_number
from casekeeper.storage.postgres.queue import partition_of
from casekeeper.values import value

USER, CASEFILE, SESSION = "sam@example.com", "cf_261129_abc123", "ts_261129_mcomc123_abc123"


@value
class Lends(Record):
    """A record with names that no other has, and one that means something else elsewhere."""

    whereabouts: str
    key: int

    @property
    def about(self) -> Sequence[About]:
        return (About("thing", f"{self.whereabouts}/{self.key}", alone=True),)


def locks(*parts: Condition | Record) -> Locks:
    """The locks of a commit; a claim is both a condition and a record."""
    conditions = [part for part in parts if isinstance(part, Condition)]
    records = [part for part in parts if isinstance(part, Record)]
    return Locks(Commit((), conditions, records).about)


def test_a_record_is_locked_by_what_it_says_whatever_its_fields_are_called():
    assert locks(Lends("shelf", 7)).advisory == [(lock_number("thing shelf/7"), True)]


def test_a_condition_that_says_nothing_of_what_it_is_about_is_refused():
    class Silent(Condition):
        __slots__ = ()

    with pytest.raises(NotImplementedError):
        locks(Silent())


def test_a_lock_is_taken_alone_where_one_part_of_the_commit_wants_it_so():
    both = (CasefileIsActive(CASEFILE), CasefileIsAt(CASEFILE, 1))

    assert (
        locks(*both).advisory == locks(*both[::-1]).advisory == [(lock_number(f"casefile {CASEFILE}"), True)]
    )


def test_an_api_key_is_locked_by_its_id():
    key = ApiKey(key_id=new_key_id(), user_id=USER, name="", created_at=utc_now())
    changed = key.model_copy(update={"revoked_at": utc_now()})

    assert locks(PutKey(key, "d")).advisory == locks(PutKey(changed, "d")).advisory
    assert locks(PutKey(key, "d")).advisory == [(lock_number(f"key {key.key_id}"), True)]


def test_what_concerns_an_account_everywhere_has_the_account_alone():
    change = PermissionChanged(ANY, USER, "logged_out", utc_now())

    assert locks(change).advisory == locks(EndRefreshFamilies(USER)).advisory


@pytest.mark.parametrize(
    ("parts", "head"),
    [
        ((), ""),
        ((SessionIsOpen(SESSION),), ""),
        ((Fence(USER, CASEFILE, 7),), "SHARE"),
        ((AccountStands(USER, 7),), "SHARE"),
        ((PermissionChanged(CASEFILE, USER, "granted", utc_now()),), "UPDATE"),
        ((Fence(USER, CASEFILE, 7), PermissionChanged(ANY, USER, "x", utc_now())), "UPDATE"),
    ],
)
def test_the_head_of_the_feed_is_shared_by_fences_and_had_alone_by_changes(
    parts: Sequence[Condition | Record], head: str
):
    assert locks(*parts).head == head


@pytest.mark.parametrize(
    ("parts", "partition", "queue"),
    [
        ((), "", "others"),
        ((SessionIsOpen(SESSION),), SESSION, SESSION),
        ((Fence(USER, CASEFILE, 7), SessionIsOpen(SESSION)), CASEFILE, SESSION),
        ((RemoveGrant(CASEFILE, USER),), CASEFILE, CASEFILE),
        ((Lends("shelf", 7),), "shelf/7", "shelf/7"),
        ((Claim("k", "f", "m", utc_now(), None), RemoveGrant(CASEFILE, USER)), CASEFILE, CASEFILE),
        ((RemoveGrant(CASEFILE, USER), PermissionChanged(CASEFILE, USER, "x", utc_now())), CASEFILE, "acl"),
    ],
)
def test_a_commit_waits_where_others_wait_that_are_about_the_same(
    parts: Sequence[Condition | Record], partition: str, queue: str
):
    about = Commit(
        (),
        [one for one in parts if isinstance(one, Condition)],
        [one for one in parts if isinstance(one, Record)],
    ).about

    assert (partition_of(about), queue_of(about)) == (partition, queue)
