import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json

from casekeeper.acl import Effect, Grant, Role
from casekeeper.casefiles.casefile import CasefileView, PutGrant, RemoveGrant
from casekeeper.documents.document import NewDocument
from casekeeper.errors import RoleTooLow
from casekeeper.execution.outcomes import Outcome
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit, PermissionChanged
from casekeeper.operations.context import MDSContext, NestedFailed
from casekeeper.operations.operation import ToolCall
from casekeeper.operations.tools import Tool, tool
from casekeeper.sessions.manager import At
from casekeeper.sessions.session import Visibility
from tests.unit.support import ANNA, BEN, House, open_house

Step = Callable[[MDSContext], Awaitable[Any]]


def inner(tool_name: str, **parameters: Any) -> ToolCall:
    return ToolCall(operation_type="tool", tool_name=tool_name, parameters=parameters)


def a_tool(step: Step, effects: frozenset[Effect] = frozenset({Effect.READ})) -> Tool:
    """A tool that does this step."""

    @tool(effects=effects, name="outer")
    async def outer(call: MDSContext) -> Any:
        """Do what the test says."""
        return await step(call)

    return outer


def a_note(text: str) -> NewDocument:
    return NewDocument(
        kind="note", title="Note", raw=text.encode(), sha256=text.ljust(64, "0"), source="test"
    )


class Scene:
    """Anna's casefile with Ben as editor; Ben runs one tool in his own session."""

    def __init__(
        self, house: House, anna: Principal, ben: Principal, casefile_id: str, session_id: str
    ) -> None:
        self.house, self.anna, self.ben = house, anna, ben
        self.casefile_id, self.session_id = casefile_id, session_id

    async def run(self, step: Step, effects: frozenset[Effect] = frozenset({Effect.READ})) -> Outcome:
        self.house.tools.add(a_tool(step, effects))
        return await self.house.run(self.ben, At(self.session_id), "outer")

    async def story(self) -> list[tuple[str, str | None, str | None]]:
        """Kind, name and error of each fact behind the opening."""
        facts = (await self.house.facts(self.session_id))[1:]
        return [(f["kind"], f.get("operation_name"), f.get("error_type")) for f in facts]


@pytest.fixture
async def scene(house: House) -> Scene:
    anna, ben = await house.caller(ANNA), await house.caller(BEN)
    casefile: CasefileView = await house.casefile(anna)
    await house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR)
    return Scene(house, anna, ben, casefile.casefile_id, await house.session(ben, casefile.casefile_id))


# Calls


async def test_a_nested_call_is_a_child_in_the_same_session(scene: Scene):
    outcome = await scene.run(lambda call: call.invoke(inner("echo", value=7), call_id="call_1"))

    facts = await scene.house.facts(scene.session_id)
    child = [f for f in facts if f.get("operation_name") == "echo"]
    assert outcome.outputs == b"7"
    assert {(f["parent_event_id"], f["request_id"]) for f in child} == {(outcome.event_id, "call_1")}
    assert [f["kind"] for f in facts] == ["opened", "started", "started", "succeeded", "succeeded"]


async def test_the_second_level_belongs_to_the_first(scene: Scene):
    parameters = {"tool_name": "nest", "parameters": {"tool_name": "echo", "parameters": {"value": 1}}}

    outcome = await scene.house.run(scene.ben, At(scene.session_id), "nest", **parameters)

    started = [f for f in await scene.house.facts(scene.session_id) if f["kind"] == "started"]
    parents = [f.get("parent_event_id") for f in started]
    assert parents == [None, started[0]["event_id"], started[1]["event_id"]]
    assert from_json(outcome.outputs or b"") == {"outputs": {"outputs": 1}}


async def test_what_a_nested_call_does_not_give_is_told_to_the_tool(scene: Scene):
    outcome = await scene.house.run(scene.ben, At(scene.session_id), "nest", tool_name="fail")

    told = from_json(outcome.outputs or b"")
    assert (told["type"], "it broke" in told["message"], told["retryable"]) == (
        "operation_raised",
        True,
        False,
    )
    assert (await scene.story())[2:] == [("failed", "fail", "operation_raised"), ("succeeded", "nest", None)]


@pytest.mark.parametrize(
    ("tool_name", "parameters", "error"),
    [
        ("shred", {}, "role_too_low"),
        ("no_such_tool", {}, "arguments_invalid"),
        ("note_add", {}, "arguments_invalid"),
    ],
    ids=["forbidden", "invented", "ill-formed"],
)
async def test_a_refused_child_leaves_one_denied(
    scene: Scene, tool_name: str, parameters: dict[str, Any], error: str
):
    outcome = await scene.house.run(
        scene.ben, At(scene.session_id), "nest", tool_name=tool_name, parameters=parameters
    )

    assert from_json(outcome.outputs or b"")["type"] == error
    assert await scene.story() == [
        ("started", "nest", None),
        ("denied", tool_name, error),
        ("succeeded", "nest", None),
    ]


async def test_a_refused_child_keeps_what_was_asked_and_by_whom(scene: Scene):
    await scene.house.run(
        scene.ben, At(scene.session_id), "nest", tool_name="shred", parameters={"what": "evidence"}
    )

    denied = (await scene.house.facts(scene.session_id))[2]
    assert (denied["inputs"], denied["actor_user_id"], denied["request_id"]) == (
        {"what": "evidence"},
        BEN,
        "call_1",
    )
    assert "role" in denied["error"]["message"]


async def test_a_refusal_that_never_became_a_call_can_be_noted(scene: Scene):
    async def step(call: MDSContext) -> None:
        await call.note_refusal(
            name="rm", inputs={"all": True}, error_type="tool_unknown", message="No rm.", call_id="call_9"
        )

    outcome = await scene.run(step)

    denied = (await scene.house.facts(scene.session_id))[2]
    assert (denied["kind"], denied["operation_name"], denied["parent_event_id"], denied["error"]) == (
        "denied",
        "rm",
        outcome.event_id,
        {"message": "No rm."},
    )


async def test_calls_nest_eight_deep_and_no_deeper(scene: Scene):
    outcome = await scene.house.run(scene.ben, At(scene.session_id), "dig")

    story = await scene.story()
    assert outcome.outputs == b"8"
    assert [s for s in story if s[0] == "denied"] == [("denied", "dig", "too_deep")]
    assert len([s for s in story if s[0] == "succeeded"]) == 9


async def test_a_child_never_has_more_time_than_its_parent(scene: Scene):
    deadlines = list[Any]()

    async def step(call: MDSContext) -> None:
        deadlines.append(call.deadline)
        scene.house.tools.add(watch)
        await call.invoke(inner("watch"))

    @tool(effects={Effect.READ}, timeout=timedelta(days=1))
    async def watch(call: MDSContext) -> None:
        """Look at the clock."""
        deadlines.append(call.deadline)

    await scene.run(step)

    assert deadlines[0] == deadlines[1]


async def test_a_stopped_parent_takes_its_children_along(scene: Scene):
    scene.house.tools.add(a_tool(lambda call: call.invoke(inner("sleepy"))))
    started = await scene.house.start(scene.ben, At(scene.session_id), "outer")
    async with asyncio.timeout(5):
        while len(scene.house.runner.all()) < 2:
            await asyncio.sleep(0.01)

    scene.house.runner.stop("Revoked.", user_id=BEN)
    await asyncio.wait_for(started.running.ended, 5)

    assert (await scene.story())[2:] == [
        ("cancelled", "sleepy", "rights_lost"),
        ("cancelled", "outer", "rights_lost"),
    ]


async def test_a_parent_that_gives_up_waiting_stops_its_child(scene: Scene):
    async def step(call: MDSContext) -> str:
        try:
            async with asyncio.timeout(0.05):
                await call.invoke(inner("sleepy"))
        except TimeoutError:
            return "went on"
        return "never"

    outcome = await scene.run(step)

    assert outcome.outputs == b'"went on"'
    assert (await scene.story())[2:] == [("cancelled", "sleepy", "cancelled"), ("succeeded", "outer", None)]


async def test_children_run_side_by_side(scene: Scene):
    async def step(call: MDSContext) -> list[Any]:
        return await asyncio.gather(*(call.invoke(inner("echo", value=n)) for n in range(5)))

    assert (await scene.run(step)).outputs == b"[0,1,2,3,4]"


# Rights at that moment


async def test_a_call_after_the_rights_are_gone_ends_the_run_as_denied(scene: Scene):
    async def step(call: MDSContext) -> Any:
        # The feed alone, so that nobody stops the run: what an unreachable worker would see.
        await lose_silently(scene)
        return await call.invoke(inner("echo"))

    outcome = await scene.run(step)

    assert outcome.failure is not None
    assert outcome.failure.type == "rights_lost"
    assert await scene.story() == [
        ("started", "outer", None),
        ("denied", "echo", "rights_lost"),
        ("denied", "outer", "rights_lost"),
    ]


async def lose_silently(scene: Scene, role: Role | None = None) -> None:
    """Ben's grant goes, or sinks, without anybody stopping what he runs."""
    now = scene.house.clock()
    record = (
        PutGrant(
            Grant(casefile_id=scene.casefile_id, user_id=BEN, role=role, granted_by=ANNA, granted_at=now)
        )
        if role
        else RemoveGrant(scene.casefile_id, BEN)
    )
    change = PermissionChanged(scene.casefile_id, BEN, "revoked", now)
    await scene.house.storage.commits.commit(Commit(records=(record, change)))


async def test_a_call_after_the_role_sank_is_refused_and_the_run_goes_on(scene: Scene):
    async def step(call: MDSContext) -> str:
        await lose_silently(scene, Role.VIEWER)
        with pytest.raises(NestedFailed):
            await call.invoke(inner("note_add", text="x"))
        return await call.invoke(inner("echo", value="still reading"))

    outcome = await scene.run(step)

    assert outcome.outputs == b'"still reading"'
    assert [s for s in await scene.story() if s[0] == "denied"] == [("denied", "note_add", "role_too_low")]


async def test_a_call_in_a_session_that_one_may_join_no_more_leaves_one_denied(scene: Scene):
    shared = await scene.house.session(scene.anna, scene.casefile_id, Visibility.CASEFILE)
    scene.house.tools.add(a_tool(lambda call: sink_and_call(scene, call)))

    await scene.house.run(scene.ben, At(shared), "outer")

    casefile = await scene.house.storage.casefiles.casefile(scene.casefile_id)
    assert casefile is not None
    everywhere = await scene.house.kinds(shared) + await scene.house.kinds(casefile.record_session_id)
    assert everywhere.count("denied") == 1


async def sink_and_call(scene: Scene, call: MDSContext) -> None:
    await lose_silently(scene, Role.VIEWER)
    with pytest.raises(NestedFailed):
        await call.invoke(inner("echo"))


async def test_an_ended_operation_calls_nothing_more(scene: Scene):
    kept = list[MDSContext]()

    async def step(call: MDSContext) -> None:
        kept.append(call)

    await scene.run(step)
    before = await scene.story()

    with pytest.raises(NestedFailed, match="has ended"):
        await kept[0].invoke(inner("echo"))
    await kept[0].note_refusal(name="x", inputs={}, error_type="x", message="x", call_id="x")
    assert await scene.story() == before


# Writes


async def test_a_running_operation_writes_documents_of_its_own_event(scene: Scene):
    async def step(call: MDSContext) -> Any:
        return [d.event_id for d in await call.documents.add([a_note("one")])]

    outcome = await scene.run(step, frozenset({Effect.WRITE}))

    assert outcome.outputs == f'["{outcome.event_id}"]'.encode()


async def count(scene: Scene) -> int:
    return (await scene.house.storage.documents.counts(scene.casefile_id)).documents


async def test_a_write_after_the_rights_are_gone_does_not_happen(scene: Scene):
    async def step(call: MDSContext) -> None:
        await lose_silently(scene)
        await call.documents.add([a_note("one")])

    outcome = await scene.run(step, frozenset({Effect.WRITE}))

    assert outcome.failure is not None
    assert (outcome.failure.type, await count(scene)) == ("rights_lost", 0)
    assert (await scene.story())[-1][0] == "denied"


async def test_a_write_after_the_role_sank_does_not_happen(scene: Scene):
    async def step(call: MDSContext) -> None:
        await lose_silently(scene, Role.VIEWER)
        with pytest.raises(RoleTooLow):
            await call.documents.add([a_note("one")])

    await scene.run(step, frozenset({Effect.WRITE}))

    assert await count(scene) == 0


async def test_a_write_whose_permission_was_renewed_happens(scene: Scene):
    async def step(call: MDSContext) -> None:
        await lose_silently(scene, Role.ADMIN)
        await call.documents.add([a_note("one")])

    await scene.run(step, frozenset({Effect.WRITE}))

    assert await count(scene) == 1


async def test_a_write_whose_permission_changes_again_and_again_does_not_happen(scene: Scene):
    async def change(_: Commit) -> None:
        await lose_silently(scene, Role.ADMIN)

    async def step(call: MDSContext) -> None:
        scene.house.commits.meanwhile(*[change] * 8)
        await call.documents.add([a_note("one")])

    outcome = await scene.run(step, frozenset({Effect.WRITE}))

    assert outcome.failure is not None
    assert (outcome.failure.type, await count(scene)) == ("rights_lost", 0)


async def test_nothing_is_written_into_a_casefile_that_was_archived_meanwhile(scene: Scene):
    async def step(call: MDSContext) -> None:
        await scene.house.update(scene.anna, scene.casefile_id, status="archived")
        await call.documents.add([a_note("one")])

    outcome = await scene.run(step, frozenset({Effect.WRITE}))

    assert outcome.failure is not None
    assert (outcome.failure.type, await count(scene)) == ("casefile_archived", 0)


async def test_an_ended_operation_writes_nothing_more(scene: Scene):
    late = list[asyncio.Task[Any]]()
    release = asyncio.Event()

    async def writes_later(call: MDSContext) -> None:
        await release.wait()
        await call.documents.add([a_note("one")])

    async def step(call: MDSContext) -> None:
        late.append(asyncio.create_task(writes_later(call)))

    await scene.run(step, frozenset({Effect.WRITE}))
    release.set()
    [error] = await asyncio.gather(*late, return_exceptions=True)

    assert type(error).__name__ == "OperationEnded"
    assert await count(scene) == 0


async def test_a_tool_that_ignores_its_end_writes_nothing_more(directory: Path):
    release, tried = asyncio.Event(), asyncio.Event()

    async def step(call: MDSContext) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        try:
            await call.documents.add([a_note("one")])
        finally:
            tried.set()

    async with open_house(directory, grace=timedelta(milliseconds=20)) as house:
        anna = await house.caller(ANNA)
        casefile = await house.casefile(anna)
        house.tools.add(a_tool(step, frozenset({Effect.WRITE})))
        outcome = await house.run(
            anna, At(casefile_id=casefile.casefile_id), "outer", timeout=timedelta(milliseconds=20)
        )
        release.set()
        await asyncio.wait_for(tried.wait(), 5)

        counts = await house.storage.documents.counts(casefile.casefile_id)

    assert outcome.failure is not None
    assert (outcome.failure.type, counts.documents) == ("deadline_exceeded", 0)


async def test_an_operation_reaches_its_own_casefile_only(scene: Scene):
    other = await scene.house.casefile(scene.anna)
    theirs = await scene.house.run(
        scene.anna, At(casefile_id=other.casefile_id), "note_add", text="of another casefile"
    )
    document_id = from_json(theirs.outputs or b"")["document_id"]

    async def step(call: MDSContext) -> Any:
        return (await call.documents.get(document_id)).text

    outcome = await scene.run(step)

    assert outcome.failure is not None
    assert outcome.failure.type == "document_not_found"


async def test_progress_is_passed_on_to_followers(scene: Scene):
    async def step(call: MDSContext) -> None:
        call.progress({"done": 1})

    with scene.house.live.watch(scene.session_id) as watch:
        outcome = await scene.run(step)
        deltas = await watch.wait(1)

    assert deltas is not None
    assert [(d.event_id, d.data) for d in deltas] == [(outcome.event_id, {"done": 1})]


async def test_the_context_says_who_runs_where(scene: Scene):
    async def step(call: MDSContext) -> Any:
        return [
            call.user_id,
            call.casefile_id,
            call.session_id,
            call.role,
            call.may(scene.house.tools["note_add"]),
            call.may(scene.house.tools["shred"]),
            call.depth,
        ]

    outcome = await scene.run(step)

    assert from_json(outcome.outputs or b"") == [
        BEN,
        scene.casefile_id,
        scene.session_id,
        "editor",
        True,
        False,
        0,
    ]
