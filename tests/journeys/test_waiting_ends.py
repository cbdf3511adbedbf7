"""What reaches operations that wait, through the HTTP door, on every store: each ends at once, with what is inside it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.journeys.support import Json
from tests.journeys.waiting import STORES, Site, open_site, user_of
from tests.journeys.waiting_processes import Process
from tests.journeys.waiting_record import Record, broken, nothing_stays_open, record_of

pytestmark = pytest.mark.timeout(240)

# Each does its work within about a second; a busy machine may take longer, and what waits for a process for ever.
_SOON_S = 20.0

End = tuple[str, str | None]
_CANCELLED: End = ("cancelled", "cancelled")
_RIGHTS_LOST: End = ("cancelled", "rights_lost")


@dataclass(frozen=True)
class Place:
    """A casefile in which an editor has operations that wait: `top`, and `inner` inside `outer`."""

    casefile_id: str
    session_id: str
    editor: str
    top: str
    outer: str
    inner: str

    def named(self, event_ids: list[str]) -> set[str]:
        """Which of them these are."""
        return {name for name in ("top", "outer", "inner") if getattr(self, name) in event_ids}


@dataclass(frozen=True)
class Reach:
    """A call that reaches what waits.

    `ends`: how the three of a place end then; what is not named waits on. `told`: those that the answer says waited.
    """

    who: str
    path: str
    payload: Callable[[Place], Json]
    ends: Mapping[str, End]
    told: set[str] | None = None


_ALL = ("top", "outer", "inner")

REACHES = {
    "cancel": Reach(
        "editor",
        "/v1/operations/cancel",
        lambda p: {"event_id": p.outer},
        {"outer": _CANCELLED, "inner": _CANCELLED},
    ),
    "cancel inside": Reach(
        "owner",
        "/v1/operations/cancel",
        lambda p: {"event_id": p.inner},
        {"inner": _CANCELLED, "outer": ("failed", "cancelled")},
    ),
    "close": Reach(
        "editor",
        "/v1/sessions/close",
        lambda p: {"session_id": p.session_id, "cancel": True},
        dict.fromkeys(_ALL, _CANCELLED),
    ),
    "revoke": Reach(
        "owner",
        "/v1/permissions/revoke",
        lambda p: {"casefile_id": p.casefile_id, "user_id": user_of(p.editor)},
        dict.fromkeys(_ALL, _RIGHTS_LOST),
        {"top", "outer", "inner"},
    ),
    # What only reads goes on, and is told that what it waited for has ended.
    "demote": Reach(
        "owner",
        "/v1/permissions/grant",
        lambda p: {"casefile_id": p.casefile_id, "user_id": user_of(p.editor), "role": "viewer"},
        {"top": _RIGHTS_LOST, "inner": _RIGHTS_LOST, "outer": ("failed", "rights_lost")},
        {"top", "inner"},
    ),
    "archive": Reach(
        "owner",
        "/v1/casefiles/update",
        lambda p: {"casefile_id": p.casefile_id, "status": "archived"},
        {
            "top": ("cancelled", "casefile_archived"),
            "inner": ("cancelled", "casefile_archived"),
            "outer": ("failed", "casefile_archived"),
        },
    ),
    "delete": Reach(
        "owner",
        "/v1/casefiles/delete",
        lambda p: {"casefile_id": p.casefile_id},
        dict.fromkeys(_ALL, _RIGHTS_LOST),
    ),
    "log out": Reach(
        "operator",
        "/v1/auth/logout",
        lambda p: {"user_id": user_of(p.editor)},
        dict.fromkeys(_ALL, _RIGHTS_LOST),
    ),
    "deactivate": Reach(
        "operator",
        "/v1/accounts/deactivate",
        lambda p: {"user_id": user_of(p.editor)},
        dict.fromkeys(_ALL, _RIGHTS_LOST),
    ),
}
# What is done to an account is done to it in every casefile.
_OF_ACCOUNTS = {"log out": "visitor", "deactivate": "leaver"}


@pytest.fixture(params=STORES)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Site]:
    """A store with as many servers as it can have."""
    async with open_site(request.param, tmp_path, people=("editor", *_OF_ACCOUNTS.values())) as opened:
        await opened.fill()
        yield opened


async def place(site: Site, editor: str, at: Process) -> Place:
    """Operations that were parked by this server."""
    casefile_id = await site.casefile(**{editor: "editor"})
    made = await site.answered(editor, "/v1/sessions/create", {"casefile_id": casefile_id})
    session_id: str = made["payload"]["session_id"]
    top = await site.run("waits_writing", who=editor, at=at, session_id=session_id)
    outer = await site.run("around", {"name": "waits_writing"}, who=editor, at=at, session_id=session_id)
    seen = await site.answered(editor, "/v1/sessions/get", {"session_id": session_id})
    ids = {one["event_id"] for one in seen["payload"]["open"]}
    [inner] = ids - {top["event_id"], outer["event_id"]}
    return Place(casefile_id, session_id, editor, top["event_id"], outer["event_id"], inner)


async def reached(site: Site, reach: Reach, editor: str) -> Place:
    """A place that this has reached, at another server than the one that parked what waits there, where there is one."""
    found = await place(site, editor, site.servers[0])
    who = editor if reach.who == "editor" else reach.who
    async with asyncio.timeout(_SOON_S):
        answer = await site.ask(who, reach.path, reach.payload(found), at=site.servers[-1])
    assert answer.status == 200, answer.json
    if reach.told is not None:
        assert found.named(answer.json["payload"]["waiting"]) == reach.told
    return found


async def settled(site: Site, found: Place, reach: Reach) -> None:
    """What waits on is woken, and everything has ended."""
    if left := [event_id for name in _ALL if name not in reach.ends for event_id in (getattr(found, name),)]:
        await site.wake(*left)
        for event_id in left:
            await site.ended(event_id)


def ends_in(record: Record, found: Place, reach: Reach) -> dict[str, End]:
    """How those ended that were to end."""
    return {name: record.end(getattr(found, name)) for name in reach.ends}


async def test_whatever_ends_work_ends_what_waits_at_once(site: Site) -> None:
    found = {
        name: await reached(site, reach, _OF_ACCOUNTS.get(name, "editor")) for name, reach in REACHES.items()
    }
    for name, reach in REACHES.items():
        await settled(site, found[name], reach)
    # Those around what was ended go on by themselves.
    for name in ("cancel inside", "demote", "archive"):
        await site.ended(found[name].outer)
    await site.end()

    record = await record_of(site)
    assert {name: ends_in(record, found[name], reach) for name, reach in REACHES.items()} == {
        name: reach.ends for name, reach in REACHES.items()
    }
    assert broken(record) == {}


async def test_the_deadline_of_what_cannot_wait_ends_what_waits_inside_it(site: Site) -> None:
    told = await site.run("impatient", {"name": "waits"}, timeout_s=1)
    await site.end()

    record = await record_of(site)
    [inner] = [one for one, [fact] in record.starts.items() if fact["operation_name"] == "waits"]
    assert told["error"]["type"] == "deadline_exceeded"
    assert (record.end(inner), record.end(told["event_id"])) == (
        ("cancelled", "cancelled"),
        ("timed_out", "deadline_exceeded"),
    )
    assert broken(record) == {}


async def test_a_server_stops_without_ending_what_waits(site: Site) -> None:
    waits = (await site.run("around", {"name": "waits"}))["event_id"]
    async with asyncio.timeout(_SOON_S):
        for server in list(site.servers):
            server.terminate()
            await server.gone()
    site.servers.clear()
    before = await record_of(site)
    await site.fill()
    await site.wake(*before.left_open)
    ended = await site.ended(waits)
    await site.end()

    assert set(broken(before)) == {nothing_stays_open.__name__}
    assert ended["success"]
    assert broken(await record_of(site)) == {}
