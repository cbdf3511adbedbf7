"""No permission outlives its revoke, over real HTTP: three servers, PostgreSQL, Redis, and whatever befalls them.

`RAIN_SEED=n` draws the same choices again; it is printed. `RAIN_SECONDS` and `RAIN_OPERATIONS` say how long it rains at
least. `SOAK=1` asks for 100,000 operations, plants faults that must be noticed, and tells how long a revoke takes.
"""

import os
import random
import secrets
import sys
from contextlib import closing
from math import inf
from pathlib import Path

import pytest

from tests.journeys.rain import NEEDS, Rain
from tests.journeys.rain_figures import told, until_refused, until_stopped
from tests.journeys.rain_ledger import NOBODY, PUBLIC, READER, Ledger, Violation
from tests.journeys.rain_lines import Reply
from tests.journeys.rain_logins import Logout, Person, Token
from tests.journeys.rain_plants import FAULTS
from tests.journeys.rain_record import judge_record
from tests.journeys.rain_site import Storm, open_site
from tests.journeys.support import soaking

# Faults follow each other closely where there is little time for them.
CALM_S = (2, 6) if soaking() else (0.3, 1.5)
GUEST = ("guest", "place")


def say(*words: object) -> None:
    """Something for whoever reads the run."""
    sys.stdout.write(f"{' '.join(map(str, words))}\n")


def asked(name: str, usual: int) -> int:
    """A number from the environment, said aloud."""
    number = int(os.environ.get(name) or usual)  # noqa: TID251 - not a setting of casekeeper
    say(f"{name}={number}")
    return number


@pytest.mark.timeout(7200 if soaking() else 240)
async def test_nobody_gets_in_after_a_revoke_whatever_befalls_the_servers(tmp_path: Path) -> None:
    seed = asked("RAIN_SEED", secrets.randbelow(1_000_000))
    seconds = asked("RAIN_SECONDS", 120 if soaking() else 20)
    operations = asked("RAIN_OPERATIONS", 100_000 if soaking() else 0)
    async with open_site(tmp_path) as site:
        storm = Storm(site, random.Random(seed), CALM_S)
        rain = Rain(site, storm, seed)
        with closing(rain.lines):
            await rain.settle_in()
            await rain.fall(seconds, operations)
            found = await judge_record(site.store, {rain.owner.user_id}, {"note_add"})
            if soaking():
                await tell_figures(rain, tmp_path / "marks")
        errors = [line for line in site.said() if " ERROR " in line or " CRITICAL " in line]

    for name, counted in (
        ("calls", rain.told),
        ("checks", rain.ledger.told),
        ("faults", storm.told),
        ("record", found),
    ):
        say(f"{name}:", dict(sorted(counted.items())))
    assert not errors
    # A rain in which nobody gets in, nobody is kept out or nothing is cached would prove nothing.
    assert 4 * rain.told["from a cache"] > rain.told["from the store"] > 0
    assert rain.ledger.told["just after a revoke"] > rain.told["revokes"] > 0
    assert rain.ledger.told["just after a public role"] > rain.told["public roles off"] > 0
    assert rain.told["tokens tried just after a logout"] > rain.told["logouts"] > 0
    assert all(rain.told[f"execute {name}: {status}"] for name in NEEDS for status in (200, 404))
    assert found["start by guest"] > 0
    assert found["write by guest"] > 0


async def tell_figures(rain: Rain, marks: Path) -> None:
    """How long a revoke takes, now that it has stopped raining."""
    say(told("revoke to refusal at another worker", await until_refused(rain, 200)))
    stopped, closed, answered = await until_stopped(rain, marks, 50)
    say(told("revoke to the end of an operation at another worker", stopped))
    say(told("revoke to the end of a stream at another worker", closed))
    say(told("revoke to its answer", answered))


if soaking():
    # Each takes servers of its own, and a minute or more; elsewhere they are not there, since nothing may be skipped.
    @pytest.mark.timeout(600)
    @pytest.mark.parametrize("name", FAULTS)
    async def test_a_fault_planted_in_the_servers_is_noticed(name: str, tmp_path: Path) -> None:
        async with open_site(tmp_path, name) as site:
            rain = Rain(site, Storm(site, random.Random(7), CALM_S), 7)

            async def judged() -> None:
                await rain.settle_in()
                await rain.fall(90, 0)
                await judge_record(site.store, {rain.owner.user_id}, {"note_add"})

            with closing(rain.lines), pytest.raises(Violation) as noticed:
                await judged()

        say(name, "->", noticed.value)


# The judge, judged


def test_after_a_revoke_has_answered_only_a_refusal_will_do() -> None:
    ledger = Ledger()
    ledger.begin(GUEST, "viewer", 1).holds = 2
    ledger.begin(GUEST, NOBODY, 5).holds = 6

    assert ledger.possible(GUEST, 0, 0.5) == {NOBODY}
    assert ledger.possible(GUEST, 0, 1.5) == {NOBODY, "viewer"}
    assert ledger.possible(GUEST, 3, 4) == {"viewer"}
    assert ledger.possible(GUEST, 3, 5.5) == {NOBODY, "viewer"}
    assert ledger.possible(GUEST, 6, 7) == {NOBODY}
    with pytest.raises(Violation, match="sent 1000 ms after the newest change held"):
        ledger.judge(GUEST, "get", 7, 8, {"viewer", "editor"})


def test_after_a_public_role_is_gone_only_members_get_in() -> None:
    ledger = Ledger()
    public = (PUBLIC, GUEST[1])
    ledger.begin(public, READER, 1).holds = 2
    ledger.begin(public, NOBODY, 5).holds = 6

    assert ledger.who(GUEST, 3, 4) == {READER}
    assert ledger.who(GUEST, 3, 5.5) == {READER, NOBODY}
    assert ledger.who(GUEST, 6, 7) == {NOBODY}
    ledger.begin(GUEST, "viewer", 8).holds = 9
    assert ledger.who(GUEST, 10, 11) == {"viewer"}


def test_a_logout_ends_what_was_made_before_it_and_nothing_that_comes_after() -> None:
    guest = Person("guest", "")
    old, late = Token("old", 1, 2), Token("late", 7, 8)
    guest.logouts.append(Logout(5, holds=6))

    def answered(status: int, token: Token, sent: float) -> None:
        guest.judge(token, "list", Reply(status, {}, sent, sent + 0.5))

    for status, token, sent in (
        (200, old, 4),
        (200, old, 5.5),
        (401, old, 5.5),
        (401, old, 9),
        (200, late, 9),
    ):
        answered(status, token, sent)
    for status, token, sent in ((200, old, 6), (200, old.child("", Reply(200, {}, 5, 7)), 8), (401, late, 9)):
        with pytest.raises(Violation):
            answered(status, token, sent)


def test_a_change_without_an_answer_may_have_happened() -> None:
    ledger = Ledger()
    ledger.begin(GUEST, "editor", 1).holds = 2
    ledger.begin(GUEST, "viewer", 5)

    assert ledger.possible(GUEST, 100, 101) == {"editor", "viewer"}


def test_a_grant_that_has_ended_lets_nobody_in_a_second_later() -> None:
    ledger = Ledger()
    ledger.begin(GUEST, "editor", 1, until=10).holds = 2

    assert ledger.possible(GUEST, 8, 9) == {"editor"}
    assert ledger.possible(GUEST, 10, 10.5) == {"editor", NOBODY}
    assert ledger.possible(GUEST, 11.5, 12) == {NOBODY}
    assert ledger.present(GUEST).holds < inf
