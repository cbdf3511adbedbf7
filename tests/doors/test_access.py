"""The access table, tried: every route, every caller, every target."""

import itertools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from casekeeper.asgi import create_app
from casekeeper.storage.postgres.store import PostgresStore
from casekeeper.storage.sqlite.store import SqliteStore
from tests.doors.access_table import CASES, KNOWN, UNKNOWN, Case
from tests.doors.sites import Site
from tests.support import Api, chosen_store

TRIED = [(case, target) for case in CASES for target in case.rows]
# Work in the background reads as well; what it began before has none of a call's context.
_IS_ASKING = ContextVar("is_asking", default=False)
_POLLING = ("SqlFeed.head", "SqlFeed.changes", "SqlFeed.number_before")
IDS = [f"{case.id} {target}" for case, target in TRIED]


def test_every_route_is_in_the_table() -> None:
    routes = {f"{method} {path}" for path, method in _routes()}
    assert routes == {case.route for case in CASES}


def test_every_row_names_a_status_for_every_caller() -> None:
    assert {len(row.split()) for case in CASES for row in case.rows.values()} == {len(KNOWN)}


@pytest.mark.parametrize(("case", "target"), TRIED, ids=IDS)
async def test_callers_get_what_the_table_says_and_only_denied_members_leave_a_fact(
    api: Api, case: Case, target: str
) -> None:
    expected = _expected(case, target)
    trial = Trial(api, case, target)
    assert {who: await trial.told(who) for who in expected} == expected


@pytest.mark.parametrize("case", [case for case in CASES if case.is_in_casefile], ids=lambda case: case.id)
async def test_strangers_cannot_tell_what_is_there_from_what_is_not(
    api: Api, case: Case, reads: list[str]
) -> None:
    site = await Site.build(api, "")
    told: dict[str, tuple[str, int]] = {}
    for target in case.rows:
        place = await site.place(case, target, "stranger")
        reads.clear()
        asking = _IS_ASKING.set(True)
        reply = await site.call(case, place, site.token("stranger"))
        _IS_ASKING.reset(asking)
        # Neither by what is answered nor by the time it takes, which is that of the reads.
        told[target] = (reply.without_ids(place), len(reads))
    assert (told["missing"][1] > 0) == (chosen_store() != "firestore")
    assert told == dict.fromkeys(case.rows, told["missing"])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the stores in SQL were asked for, apart from the feed of permissions, which is read for everybody."""
    asked: list[str] = []

    def listened(ask: Callable[..., Any]) -> Callable[..., Any]:
        async def listening(self: Any, read: Callable[..., Any]) -> Any:
            if _IS_ASKING.get() and not read.__qualname__.startswith(_POLLING):
                asked.append(read.__qualname__)
            return await ask(self, read)

        return listening

    for store in (SqliteStore, PostgresStore):
        for name in ("point", "scan"):
            monkeypatch.setattr(store, name, listened(getattr(store, name)))
    return asked


class Trial:
    """One case on one target. The site is built anew whenever a call has changed it."""

    _prefixes = itertools.count()

    def __init__(self, api: Api, case: Case, target: str) -> None:
        self._api = api
        self._case = case
        self._target = target
        self._site: Site | None = None

    async def told(self, who: str) -> str:
        """How this caller was answered, and, if refused, which facts that left."""
        site = self._site = self._site or await Site.build(self._api, f"h{next(self._prefixes)}.")
        place = await site.place(self._case, self._target, who)
        before = await self._api.facts()
        reply = await site.call(self._case, place, site.token(who))
        if reply.status == 200:
            self._site = None if self._case.changes else site
            return "200"
        left = [
            f", {kind} in the {'record session' if session_id == site.record_session_id else 'session'}"
            for session_id, kind, _ in (await self._api.facts())[len(before) :]
        ]
        problem = " problem" if reply.content_type == "application/problem+json" else ""
        return f"{reply.status}{problem}{''.join(left)}"


def _expected(case: Case, target: str) -> dict[str, str]:
    statuses = dict(zip(KNOWN, case.rows[target].split(), strict=True))
    statuses |= dict.fromkeys(UNKNOWN, statuses["viewer"] if case.open else "401")
    return {who: _told(case, who, status) for who, status in statuses.items()}


def _told(case: Case, who: str, status: str) -> str:
    if status == "200":
        return status
    place = "session" if who in case.denied_in_session else "record session"
    denied = f", denied in the {place}" if status == "403" and case.is_in_casefile else ""
    return f"{status} problem{denied}"


def _routes() -> list[tuple[str, str]]:
    return [
        (context.path or "", method)
        for context in iter_route_contexts(create_app().routes)
        for method in context.methods or ("a websocket",)
        if method != "HEAD"
    ]
