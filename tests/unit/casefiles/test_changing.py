import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from pydantic import ValidationError

from casekeeper.acl import Action, Role
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.casefiles.changing import Changing, PlannedChange, Present
from casekeeper.casefiles.commands import DeleteTheCasefile, UpdateCasefile
from casekeeper.errors import CasefileNotFound, RoleTooLow, StaleVersion, StoreUnavailable
from casekeeper.identity.account_commands import DeactivateAccount
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.journal.requests import ClaimStore, Requests
from tests.unit.support import ANNA, BEN, CARA, ROOT, House

Happens = Callable[[Commit], Awaitable[None]]


@pytest.fixture
async def anna(house: House) -> Principal:
    return await house.caller(ANNA)


@pytest.fixture
async def casefile(house: House, anna: Principal) -> CasefileView:
    """Anna's casefile, in which Ben is admin."""
    made = await house.casefile(anna)
    await house.account(BEN)
    await house.grant(anna, made.casefile_id, BEN, Role.ADMIN)
    return made


async def present(house: House, casefile_id: str) -> Any:
    return await house.storage.casefiles.casefile(casefile_id)


def happens(work: Callable[[], Awaitable[Any]]) -> Happens:
    async def happen(_: Commit) -> None:
        await work()

    return happen


async def test_every_change_takes_the_next_version(house: House, anna: Principal, casefile: CasefileView):
    versions = [
        (await house.update(anna, casefile.casefile_id, title="One")).version,
        (await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)) and 0,
        (await house.update(anna, casefile.casefile_id, title="Two")).version,
    ]

    assert versions == [3, 0, 5]


async def test_two_changes_at_once_both_happen(house: House, anna: Principal, casefile: CasefileView):
    await asyncio.gather(
        house.update(anna, casefile.casefile_id, title="Flat 4"),
        house.update(anna, casefile.casefile_id, description="The rent"),
    )

    changed = await present(house, casefile.casefile_id)
    assert (changed.title, changed.description, changed.version) == ("Flat 4", "The rent", 4)


async def test_a_rival_change_is_built_upon(house: House, anna: Principal, casefile: CasefileView):
    house.commits.meanwhile(happens(lambda: house.update(anna, casefile.casefile_id, tags=["rent"])))

    await house.update(anna, casefile.casefile_id, title="Flat 4")

    changed = await present(house, casefile.casefile_id)
    assert (changed.title, changed.tags) == ("Flat 4", ["rent"])


async def test_the_expected_version_must_be_the_casefiles(
    house: House, anna: Principal, casefile: CasefileView
):
    with pytest.raises(StaleVersion) as stale:
        await house.update(anna, casefile.casefile_id, title="Flat 4", expected_version=1)

    assert stale.value.current == 2


async def test_the_expected_version_lets_the_change_through(
    house: House, anna: Principal, casefile: CasefileView
):
    changed = await house.update(anna, casefile.casefile_id, title="Flat 4", expected_version=2)

    assert changed.version == 3


async def test_the_second_of_two_who_expect_the_same_version_is_told(
    house: House, anna: Principal, casefile: CasefileView
):
    house.commits.meanwhile(
        happens(lambda: house.update(anna, casefile.casefile_id, title="First", expected_version=2))
    )

    with pytest.raises(StaleVersion):
        await house.update(anna, casefile.casefile_id, title="Second", expected_version=2)

    assert (await present(house, casefile.casefile_id)).title == "First"


@pytest.mark.parametrize("version", [0, -1, 2**53 + 1, "x"])
def test_a_version_is_a_positive_number(version: object):
    with pytest.raises(ValidationError, match="expected_version"):
        UpdateCasefile.model_validate({"casefile_id": "cf_251023_5acf44", "expected_version": version})


async def test_a_change_whose_permission_is_renewed_meanwhile_goes_through(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN, casefile.casefile_id)

    async def renew() -> None:
        await house.revoke(anna, casefile.casefile_id, BEN)
        await house.grant(anna, casefile.casefile_id, BEN, Role.ADMIN)

    house.commits.meanwhile(happens(renew))

    assert (await house.update(ben, casefile.casefile_id, title="Flat 4")).title == "Flat 4"


async def test_a_change_whose_permission_ends_meanwhile_does_not_happen(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN, casefile.casefile_id)
    house.commits.meanwhile(happens(lambda: house.revoke(anna, casefile.casefile_id, BEN)))

    with pytest.raises(CasefileNotFound):
        await house.update(ben, casefile.casefile_id, title="Flat 4")

    assert (await present(house, casefile.casefile_id)).title == "Rent dispute"


async def test_a_change_whose_role_sinks_meanwhile_is_denied_and_recorded(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN, casefile.casefile_id)
    house.commits.meanwhile(happens(lambda: house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR)))

    with pytest.raises(RoleTooLow):
        await house.update(ben, casefile.casefile_id, title="Flat 4")

    assert (await house.kinds(casefile.record_session_id))[-2:] == ["role_changed", "denied"]


async def test_a_change_by_an_account_that_is_deactivated_meanwhile_does_not_happen(
    house: House, anna: Principal, casefile: CasefileView
):
    ben, root = await house.caller(BEN), await house.caller(ROOT)
    ended = DeactivateAccount(user_id=BEN)
    house.commits.meanwhile(happens(lambda: house.accounts.deactivate(root, ended, house.ask(root))))

    with pytest.raises(CasefileNotFound):
        await house.update(ben, casefile.casefile_id, title="Flat 4")

    assert (await present(house, casefile.casefile_id)).title == "Rent dispute"


async def test_a_change_of_a_casefile_that_is_deleted_meanwhile_finds_nothing(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN)
    house.commits.meanwhile(happens(lambda: house.delete(anna, casefile.casefile_id)))

    with pytest.raises(CasefileNotFound):
        await house.update(ben, casefile.casefile_id, title="Flat 4")


async def test_a_change_that_loses_every_race_gives_up_and_says_so(
    house: House, anna: Principal, casefile: CasefileView
):
    rival = happens(lambda: house.update(anna, casefile.casefile_id, description="again"))
    # The rival's own commits come in between, so every second one lets the rival through.
    house.commits.meanwhile(*[rival, _nothing] * 51)

    with pytest.raises(StoreUnavailable) as gave_up:
        await house.update(anna, casefile.casefile_id, title="Flat 4")

    assert gave_up.value.retryable


async def _nothing(_: Commit) -> None:
    pass


async def test_a_repeat_answers_with_what_is_there_now(house: House, anna: Principal, casefile: CasefileView):
    command = UpdateCasefile(casefile_id=casefile.casefile_id, title="Flat 4")
    await house.casefiles.update(anna, command, house.ask(anna, "req"))
    await house.update(anna, casefile.casefile_id, title="Flat 5")

    answer, repeated = await house.casefiles.update(anna, command, house.ask(anna, "req"))

    assert (answer.title, answer.version, repeated) == ("Flat 5", 4, True)


@dataclass
class Interrupted:
    """The store's claims; after the first look at them something else happens."""

    behind: ClaimStore
    then: Callable[[], Awaitable[Any]]
    looks: int = 0

    async def claimed(self, key: str, now: datetime) -> tuple[str, str] | None:
        found = await self.behind.claimed(key, now)
        self.looks += 1
        if self.looks == 1:
            await self.then()
        return found


async def test_of_two_same_requests_at_once_the_second_answers_like_a_repeat_though_its_access_is_gone(
    house: House, anna: Principal, casefile: CasefileView
):
    command, ask = DeleteTheCasefile(casefile_id=casefile.casefile_id), house.ask(anna, "req")
    claims = Interrupted(house.storage.accounts, lambda: house.casefiles.delete(anna, command, ask))
    requests = Requests(claims, house.clock)
    changing = Changing(house.gate, house.storage.casefiles, house.commits, requests, house.clock)

    async def decide(_: Present) -> PlannedChange:
        raise AssertionError("the casefile is gone")

    async def answer(casefile_id: str) -> str:
        return f"{casefile_id} is gone"

    told = await changing.change(anna, command, Action.DELETE, decide, ask, answer, ends_access=True)

    assert told == (f"{casefile.casefile_id} is gone", True)


async def test_a_repeat_after_losing_access_finds_nothing(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN)
    command = UpdateCasefile(casefile_id=casefile.casefile_id, title="Flat 4")
    await house.casefiles.update(ben, command, house.ask(ben, "req"))
    await house.revoke(anna, casefile.casefile_id, BEN)

    with pytest.raises(CasefileNotFound):
        await house.casefiles.update(ben, command, house.ask(ben, "req"))


async def test_a_stale_expectation_does_not_disturb_a_repeat(
    house: House, anna: Principal, casefile: CasefileView
):
    command = UpdateCasefile(casefile_id=casefile.casefile_id, title="Flat 4", expected_version=2)
    await house.casefiles.update(anna, command, house.ask(anna, "req"))

    _, repeated = await house.casefiles.update(anna, command, house.ask(anna, "req"))

    assert repeated


async def test_twenty_equal_requests_at_once_change_once(
    house: House, anna: Principal, casefile: CasefileView
):
    command = UpdateCasefile(casefile_id=casefile.casefile_id, title="Flat 4")

    answers = await asyncio.gather(
        *(house.casefiles.update(anna, command, house.ask(anna, "req")) for _ in range(20))
    )

    assert sorted(repeated for _, repeated in answers) == [False] + [True] * 19
    assert (await present(house, casefile.casefile_id)).version == 3


async def test_a_change_that_ends_the_callers_access_can_be_repeated(
    house: House, anna: Principal, casefile: CasefileView
):
    command = DeleteTheCasefile(casefile_id=casefile.casefile_id)
    await house.casefiles.delete(anna, command, house.ask(anna, "req"))

    answer, repeated = await house.casefiles.delete(anna, command, house.ask(anna, "req"))

    assert (answer.deleted, repeated) == (True, True)


async def test_a_change_tells_who_made_it_and_on_which_request(
    house: House, anna: Principal, casefile: CasefileView
):
    command = UpdateCasefile(casefile_id=casefile.casefile_id, title="Flat 4")
    await house.casefiles.update(anna, command, house.ask(anna, "req"))

    fact = (await house.facts(casefile.record_session_id or ""))[-1]
    assert (fact["kind"], fact["actor_user_id"], fact["request_id"], fact["inputs"]) == (
        "casefile_updated",
        ANNA,
        "req",
        {"title": "Flat 4"},
    )


async def test_a_stranger_changes_nothing(house: House, casefile: CasefileView):
    with pytest.raises(CasefileNotFound):
        await house.update(await house.caller(CARA), casefile.casefile_id, title="Mine")
