"""Maps the people of a bundle to accounts of the store that imports it."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from casekeeper.bundles.archive import BundleUnfit
from casekeeper.bundles.contents import Person
from casekeeper.identity.accounts import Account, AccountStore
from casekeeper.values import value

_PAGE = 200
ELSEWHERE = "imported"
"""Host part of the user ids under which pseudonyms are kept that are nobody's here."""


@value
class People:
    """By user id in the bundle, the user id here; and the accounts to be made, all inactive."""

    here: Mapping[str, str]
    new: Sequence[Account]

    @property
    def changed(self) -> dict[str, str]:
        """Who is another account here, for the record."""
        return {there: here for there, here in self.here.items() if there != here}

    def of(self, user_id: str) -> str:
        """The user id here. Who is not listed was named by a former account and stays as they are."""
        return self.here.get(user_id, user_id)


async def people_of(
    store: AccountStore, people: Sequence[Person], mapped: Mapping[str, str], now: datetime
) -> People:
    """Find the accounts of these people: as mapped, by pseudonym, by user id; the others are to be made.

    The record names actors by pseudonym. One that is not the found account's own is kept in an inactive account
    beside, so that the record goes on telling names.

    Raises:
        BundleUnfit: Somebody is mapped who is not in the bundle, or to an account that does not exist.
    """
    accounts: dict[str, Account] = {}
    by_pseudonym: dict[str, str] = {}
    after = ""
    while page := await store.accounts(after, _PAGE):
        after = page[-1].user_id
        accounts |= {account.user_id: account for account in page}
        by_pseudonym |= {account.pseudonym: account.user_id for account in page}
    if strangers := sorted(mapped.keys() - {p.user_id for p in people}):
        raise BundleUnfit(f"it does not name {', '.join(strangers)}")
    if absent := sorted(set(mapped.values()) - accounts.keys()):
        raise BundleUnfit(f"there is no account {', '.join(absent)} here")
    here: dict[str, str] = {}
    new: list[Account] = []
    for person in people:
        found = mapped.get(person.user_id) or by_pseudonym.get(person.pseudonym)
        user_id = found or person.user_id
        here[person.user_id] = user_id
        if person.pseudonym not in by_pseudonym:
            kept = user_id if user_id not in accounts else f"{person.pseudonym}@{ELSEWHERE}"
            new.append(_inactive(person, kept, now))
    return People(here, new)


def _inactive(person: Person, user_id: str, now: datetime) -> Account:
    name = person.display_name
    if user_id != person.user_id:
        # The user id is no name that anybody knows; the former one is.
        name = f"{name} ({person.user_id})".strip()
    return Account(
        user_id=user_id, display_name=name, is_active=False, created_at=now, pseudonym=person.pseudonym
    )
