from dataclasses import dataclass
from datetime import timedelta

import pytest

from casekeeper.acl import Role
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.errors import (
    ArgumentsInvalid,
    CasefileNotFound,
    Refused,
    RoleTooLow,
    SessionNotFound,
    SessionPrivate,
    SessionReserved,
)
from casekeeper.identity.principal import Principal
from casekeeper.sessions.manager import At, Purpose
from casekeeper.sessions.session import CloseSession, CreateSession, SessionFilter, SessionType, Visibility
from tests.unit.support import ANNA, BEN, CARA, DORA, NOW, House

OK, HIDDEN, ROLE, PRIVATE, RESERVED = None, SessionNotFound, RoleTooLow, SessionPrivate, SessionReserved
PURPOSES = (Purpose.READ, Purpose.EXECUTE, Purpose.CLOSE, Purpose.SUPERVISE)

# Isolation of sessions, written out: who may do what in whose session. Columns: read, execute, close, stop another's.
TABLE: dict[tuple[str, str], tuple[type[Refused] | None, ...]] = {
    ("own private", "viewer"): (OK, OK, OK, ROLE),
    ("own private", "editor"): (OK, OK, OK, ROLE),
    ("own private", "admin"): (OK, OK, OK, OK),
    ("own private", "revoked"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    ("own private", "public"): (ROLE, ROLE, ROLE, ROLE),
    ("private", "stranger"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    ("private", "public"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    ("private", "viewer"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    ("private", "editor"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    ("private", "admin"): (OK, PRIVATE, OK, OK),
    ("private", "owner"): (OK, PRIVATE, OK, OK),
    ("shared", "stranger"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    ("shared", "public"): (ROLE, ROLE, ROLE, ROLE),
    ("shared", "viewer"): (OK, ROLE, ROLE, ROLE),
    ("shared", "editor"): (OK, OK, ROLE, ROLE),
    ("shared", "admin"): (OK, OK, OK, OK),
    ("shared", "owner"): (OK, OK, OK, OK),
    ("record", "stranger"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    ("record", "public"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    ("record", "viewer"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    ("record", "editor"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    ("record", "admin"): (OK, RESERVED, RESERVED, RESERVED),
    ("record", "owner"): (OK, RESERVED, RESERVED, RESERVED),
}


@dataclass
class Scene:
    """Anna owns the casefile, Cara (an editor) made its sessions; Ben is whoever the table says."""

    house: House
    anna: Principal
    casefile: CasefileView

    async def become(self, role: str) -> Principal:
        """Ben with a role; `public` opens the casefile to all, `owner` makes Ben its owner."""
        casefile_id = self.casefile.casefile_id
        if role in ("viewer", "editor", "admin"):
            await self.house.grant(self.anna, casefile_id, BEN, Role(role))
        elif role == "owner":
            await self.house.transfer(self.anna, casefile_id, BEN)
        elif role == "public":
            await self.house.update(self.anna, casefile_id, public_role="viewer")
        return await self.house.caller(BEN)

    async def session(self, kind: str, maker: str = CARA) -> str:
        if kind == "record":
            return self.casefile.record_session_id or ""
        visibility = Visibility.CASEFILE if kind == "shared" else Visibility.PRIVATE
        return await self.house.session(await self.house.caller(maker), self.casefile.casefile_id, visibility)


@pytest.fixture
async def scene(house: House) -> Scene:
    anna = await house.caller(ANNA)
    made = await house.casefile(anna)
    for user in (BEN, CARA):
        await house.account(user)
    await house.grant(anna, made.casefile_id, CARA, Role.EDITOR)
    return Scene(house, anna, made)


async def outcome(house: House, caller: Principal, session_id: str, purpose: Purpose) -> type[Refused] | None:
    try:
        await house.manager.validate_and_get_session(caller, At(session_id), purpose)
    except Refused as refusal:
        return type(refusal)
    return None


@pytest.mark.parametrize(("kind", "role"), TABLE, ids=lambda value: str(value).replace(" ", "-"))
async def test_who_may_do_what_in_whose_session(scene: Scene, kind: str, role: str):
    own = kind == "own private"
    if own:
        await scene.become("editor")
        session_id = await scene.session("private", BEN)
        if role in ("revoked", "public"):
            await scene.house.revoke(scene.anna, scene.casefile.casefile_id, BEN)
    else:
        session_id = await scene.session(kind)
    ben = await scene.become(role)

    found = tuple([await outcome(scene.house, ben, session_id, purpose) for purpose in PURPOSES])

    assert found == TABLE[kind, role]


@pytest.mark.parametrize("role", ["stranger", "public", "viewer", "editor", "admin", "owner"])
async def test_a_list_shows_what_may_be_read_and_no_record(scene: Scene, role: str):
    made = {await scene.session(kind, maker) for kind in ("private", "shared") for maker in (ANNA, CARA)}
    ben = await scene.become(role)

    readable = {s for s in made if await outcome(scene.house, ben, s, Purpose.READ) is None}
    listed = await scene.house.storage.sessions.sessions_seen_by(BEN, NOW, SessionFilter(), None, 100)

    assert {session.session_id for session in listed} == readable


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_a_session_of_another_casefile_is_missing(scene: Scene, purpose: Purpose):
    other = await scene.house.casefile(scene.anna)
    session_id = await scene.session("private", ANNA)

    with pytest.raises(SessionNotFound):
        await scene.house.manager.validate_and_get_session(
            scene.anna, At(session_id, other.casefile_id), purpose
        )


async def test_a_session_with_its_own_casefile_is_found(scene: Scene):
    session_id = await scene.session("private", ANNA)

    context = await scene.house.manager.validate_and_get_session(
        scene.anna, At(session_id, scene.casefile.casefile_id)
    )

    assert (context.session.session_id, context.is_new, context.caller.user_id) == (session_id, False, ANNA)


async def test_a_missing_session_is_told_like_a_hidden_one(scene: Scene):
    hidden = await scene.session("private")
    ben, told = await scene.become("viewer"), list[str]()

    for session_id in (hidden, "ts_251023_ecomcf44_000000"):
        with pytest.raises(SessionNotFound) as missing:
            await scene.house.manager.validate_and_get_session(ben, At(session_id), Purpose.READ)
        told.append(missing.value.detail.replace(session_id, "ID"))

    assert told[0] == told[1]


async def test_a_session_of_a_deleted_casefile_is_missing(scene: Scene):
    session_id = await scene.session("private", ANNA)
    await scene.house.delete(scene.anna, scene.casefile.casefile_id)

    assert await outcome(scene.house, scene.anna, session_id, Purpose.READ) is SessionNotFound


async def test_a_place_that_is_no_place_names_the_field(scene: Scene):
    with pytest.raises(ArgumentsInvalid) as invalid:
        await scene.house.manager.validate_and_get_session(scene.anna, At())

    assert [error.field for error in invalid.value.errors] == ["payload.casefile_id"]


async def test_working_in_anothers_private_session_is_denied_and_recorded(scene: Scene):
    session_id = await scene.session("private")
    ben = await scene.become("admin")

    await outcome(scene.house, ben, session_id, Purpose.EXECUTE)

    fact = (await scene.house.facts(scene.casefile.record_session_id or ""))[-1]
    assert (fact["kind"], fact["error_type"], fact["inputs"]) == (
        "denied",
        "session_private",
        {"session_id": session_id},
    )


async def test_reading_anothers_private_session_as_admin_is_no_denial(scene: Scene):
    session_id = await scene.session("private")
    ben = await scene.become("admin")

    await outcome(scene.house, ben, session_id, Purpose.READ)

    assert "denied" not in await scene.house.kinds(scene.casefile.record_session_id)


# New sessions


async def test_a_planned_session_is_not_written(scene: Scene):
    context = await scene.house.manager.plan(
        scene.anna, CreateSession(casefile_id=scene.casefile.casefile_id, title="Look")
    )

    assert (context.is_new, context.session.title, context.session.auto) == (True, "Look", False)
    assert await scene.house.storage.sessions.session(context.session.session_id) is None


@pytest.mark.parametrize(("role", "refusal"), [("stranger", CasefileNotFound), ("public", RoleTooLow)])
async def test_who_is_no_member_plans_no_session(scene: Scene, role: str, refusal: type[Refused]):
    ben = await scene.become(role)

    with pytest.raises(refusal):
        await scene.house.manager.plan(ben, CreateSession(casefile_id=scene.casefile.casefile_id))
    with pytest.raises(refusal):
        await scene.house.manager.validate_and_get_session(ben, At(casefile_id=scene.casefile.casefile_id))


async def test_a_casefile_alone_leads_to_an_auto_session(scene: Scene):
    place = At(casefile_id=scene.casefile.casefile_id)

    context = await scene.house.manager.validate_and_get_session(scene.anna, place)

    session = context.session
    assert (context.is_new, session.auto, session.visibility, session.session_type) == (
        True,
        True,
        Visibility.PRIVATE,
        SessionType.INTERACTIVE,
    )
    assert context.idle_since == NOW - timedelta(hours=12)


async def test_nobody_is_given_anothers_auto_session(scene: Scene):
    place = At(casefile_id=scene.casefile.casefile_id)
    await scene.house.run(scene.anna, place, "echo")

    context = await scene.house.manager.validate_and_get_session(await scene.house.caller(CARA), place)

    assert context.is_new


async def test_a_closed_auto_session_is_not_used_again(scene: Scene):

    place = At(casefile_id=scene.casefile.casefile_id)
    first = await scene.house.run(scene.anna, place, "echo")
    closing = CloseSession(session_id=first.session_id)
    await scene.house.sessions.close_session(scene.anna, closing, scene.house.ask(scene.anna))

    assert (await scene.house.manager.validate_and_get_session(scene.anna, place)).is_new


async def test_a_session_that_is_there_needs_only_to_be_open(scene: Scene):
    session_id = await scene.session("private", ANNA)

    opening = (await scene.house.manager.validate_and_get_session(scene.anna, At(session_id))).opening

    assert (opening.facts, opening.records, len(opening.conditions)) == ((), (), 1)


async def test_the_opening_tells_what_was_opened(scene: Scene):
    session_id = await scene.session("shared", ANNA)

    [fact] = await scene.house.facts(session_id)

    assert (fact["kind"], fact["actor_user_id"], fact["permission"]["role"]) == ("opened", ANNA, "owner")
    assert fact["inputs"] == {
        "session_type": "interactive",
        "visibility": "casefile",
        "title": None,
        "metadata": {},
    }


async def test_only_members_may_list_a_casefiles_sessions(scene: Scene):
    dora = await scene.house.caller(DORA)

    access = await scene.house.manager.enter(scene.anna, scene.casefile.casefile_id)
    with pytest.raises(CasefileNotFound):
        await scene.house.manager.enter(dora, scene.casefile.casefile_id)

    assert access.role is Role.OWNER
