"""The SDK against a real server in the same process; only the network between them misbehaves."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from casekeeper import client
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.client import (
    ApiError,
    Casekeeper,
    Conflict,
    Denied,
    Invalid,
    Limited,
    NotFound,
    OperationFailed,
    Retry,
    ServerFault,
    Unauthenticated,
    Unavailable,
    Unreachable,
    tool,
)
from casekeeper.journal.events import ExecutionEvent
from casekeeper.server import Server
from casekeeper.verbs import VERBS
from tests.doors.conftest import PASSWORD, QUICK
from tests.doors.network import Network, answers, reply_lost, unreached
from tests.support import SteppableClock, Workshop, open_test_server

SAMPLE = Path(str(client.__file__)).parents[1] / "reading" / "sample.mbox"
EXECUTE, TOKEN, REFRESH = VERBS["sessions/execute"].path, VERBS["auth/token"].path, VERBS["auth/refresh"].path


async def a_casefile(ck: Casekeeper) -> str:
    return (await ck.casefiles.create("Tax 2024")).casefile_id


# Who calls


async def test_many_first_calls_log_in_once(sam: Casekeeper, network: Network) -> None:
    assert network.count(TOKEN) == 0
    await asyncio.gather(*(sam.casefiles.list() for _ in range(10)))
    assert network.count(TOKEN) == 1


async def test_wrong_credentials_are_told_and_not_tried_again(sam: Casekeeper, network: Network) -> None:
    async with Casekeeper("http://t", user_id="sam@example.com", password="wrong", transport=network) as ck:
        with pytest.raises(Unauthenticated) as refusal:
            await ck.casefiles.list()
    assert refusal.value.code == "credentials_rejected"
    assert network.count(TOKEN) == 1


async def test_an_api_key_logs_in(sam: Casekeeper, network: Network) -> None:
    key = await sam.keys.create("test")
    async with Casekeeper("http://t", api_key=key.api_key, transport=network) as ck:
        made = await ck.casefiles.create("By key")
    assert made.owner == "sam@example.com"
    assert [k.key_id for k in await sam.keys.list()] == [key.key_id]


async def test_a_token_of_its_own_is_used_as_it_is_and_ends_with_it(server: Server, network: Network) -> None:
    async with Casekeeper("http://t", token="forged", transport=network) as ck:
        with pytest.raises(Unauthenticated):
            await ck.casefiles.list()
    assert len(network.paths) == 1


@pytest.mark.parametrize(
    "login",
    [{}, {"user_id": "a@b"}, {"password": "x"}, {"api_key": "k", "token": "t"}],
    ids=["nothing", "no password", "no user", "two ways"],
)
def test_a_client_needs_exactly_one_way_to_log_in(login: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="give either"):
        Casekeeper("http://t", **login)  # type: ignore[arg-type]


async def test_an_ended_token_is_refreshed_and_after_a_long_pause_the_password_is_used(
    tmp_path: Path,
) -> None:
    clock = SteppableClock()
    async with open_test_server(tmp_path / "data", clock=clock) as server:
        network, first = Network(server), server.first_login
        assert first is not None
        async with Casekeeper(
            "http://t", user_id=first.user_id, password=first.password, transport=network
        ) as ck:
            await ck.casefiles.list()
            clock.step(minutes=11)
            await asyncio.gather(*(ck.casefiles.list() for _ in range(5)))
            assert (network.count(TOKEN), network.count(REFRESH)) == (1, 1)
            clock.step(days=15)
            await ck.casefiles.list()
            assert (network.count(TOKEN), network.count(REFRESH)) == (2, 2)


async def test_a_token_that_is_about_to_end_is_replaced_before_it_does(
    sam: Casekeeper, server: Server, network: Network
) -> None:
    asked = 0

    async def token() -> object:
        nonlocal asked
        asked += 1
        minted = await server.identity.logins.mint_for("sam@example.com")
        return minted.model_copy(update={"expires_in": 0 if asked == 1 else 600})

    async with Casekeeper("http://t", token=token, transport=network) as ck:  # type: ignore[arg-type]
        for _ in range(3):
            await ck.casefiles.list()
    assert asked == 2


async def test_one_s_own_new_password_is_used_from_then_on(sam: Casekeeper) -> None:
    await sam.accounts.update("sam@example.com", password="a better password", current_password=PASSWORD)
    assert (await sam.casefiles.list()).items == []


async def test_the_token_that_an_answer_brings_is_used_from_then_on(sam: Casekeeper) -> None:
    casefile_id = await a_casefile(sam)
    first = await sam.run_tool(casefile_id, "noop")
    second = await sam.run_tool(casefile_id, "noop")
    assert (first.permission_from_cache, second.permission_from_cache) == (False, True)


# What is tried again


async def test_a_lost_reply_does_not_run_a_tool_twice(
    sam: Casekeeper, network: Network, workshop: Workshop
) -> None:
    casefile_id = await a_casefile(sam)
    network.plan(EXECUTE, reply_lost, unreached, reply_lost)
    result = await sam.run_tool(casefile_id, "echo", value=7)
    assert (result.success, result.outputs) == (True, 7)
    assert workshop.runs["echo"] == 1
    assert network.count(EXECUTE) == 4


async def test_a_lost_reply_does_not_make_two_casefiles(sam: Casekeeper, network: Network) -> None:
    network.plan(VERBS["casefiles/create"].path, reply_lost)
    made = await sam.casefiles.create("Once")
    assert [c.casefile_id for c in (await sam.casefiles.list()).items] == [made.casefile_id]


async def test_a_server_that_is_busy_or_away_for_a_moment_is_asked_again(
    sam: Casekeeper, network: Network
) -> None:
    path = VERBS["casefiles/list"].path
    network.plan(path, answers(429, retry_after="0"), answers(503), answers(502), unreached)
    assert (await sam.casefiles.list()).items == []
    assert network.count(path) == 5


@pytest.mark.parametrize(("status", "error"), [(429, Limited), (503, Unavailable)])
async def test_after_the_last_try_the_error_is_told(
    sam: Casekeeper, network: Network, status: int, error: type[ApiError]
) -> None:
    path = VERBS["casefiles/list"].path
    network.plan(path, *[answers(status, {"code": "busy", "detail": "Later."}, retry_after="0")] * 9)
    with pytest.raises(error, match=r"Later\.") as refusal:
        await sam.casefiles.list()
    assert (refusal.value.code, refusal.value.status) == ("busy", status)
    assert network.count(path) == Retry().tries


async def test_no_answer_at_all_is_an_error_of_its_own(sam: Casekeeper, network: Network) -> None:
    network.plan(TOKEN, *[unreached] * 9)
    with pytest.raises(Unreachable, match="refused by the test"):
        await sam.casefiles.list()


async def test_a_server_that_wants_more_patience_than_allowed_is_not_waited_for(
    sam: Casekeeper, network: Network
) -> None:
    network.plan(VERBS["casefiles/list"].path, answers(429, retry_after="3600"))
    with pytest.raises(Limited) as refusal:
        await sam.casefiles.list()
    assert refusal.value.retry_after_s == 3600


async def test_what_will_not_pass_is_not_tried_again(sam: Casekeeper, network: Network) -> None:
    casefile_id = await a_casefile(sam)
    network.plan(EXECUTE, answers(503, {"code": "model_unavailable", "detail": "No key."}))
    with pytest.raises(Unavailable):
        await sam.run_agent(casefile_id, "gpt-4o-mini", "hello")
    assert network.count(EXECUTE) == 1


async def test_an_operation_that_still_runs_is_waited_for_however_often_that_is_said(
    sam: Casekeeper, network: Network
) -> None:
    casefile_id = await a_casefile(sam)
    running = answers(409, {"code": "still_running", "detail": "Later."}, retry_after="0")
    network.plan(EXECUTE, reply_lost, *[running] * 12)
    assert (await sam.run_tool(casefile_id, "noop")).success


# What goes wrong


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (401, "Unauthenticated"),
        (403, "Denied"),
        (404, "NotFound"),
        (409, "Conflict"),
        (410, "Gone"),
        (413, "TooLarge"),
        (422, "Invalid"),
        (429, "Limited"),
        (431, "TooLarge"),
        (500, "ServerFault"),
        (503, "Unavailable"),
    ],
)
async def test_each_branch_of_problems_is_an_error_of_its_own(status: int, name: str) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        problem = {"code": "the_code", "detail": "The detail.", "request_id": "r1"}
        return httpx2.Response(status, json=problem)

    transport = httpx2.MockTransport(answer)
    async with Casekeeper("http://t", token="t", transport=transport, retry=Retry(tries=1)) as ck:
        with pytest.raises(ApiError) as refusal:
            await ck.casefiles.list()
    error = refusal.value
    assert type(error) is getattr(client, name)
    assert (error.status, error.code, error.detail, error.request_id) == (
        status,
        "the_code",
        "The detail.",
        "r1",
    )


@pytest.mark.parametrize("body", [b"<html>", b"[]", b""], ids=["html", "list", "empty"])
async def test_an_error_that_is_no_problem_is_told_by_its_status(body: bytes) -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(500, content=body))
    async with Casekeeper("http://t", token="t", transport=transport) as ck:
        with pytest.raises(ServerFault, match="status 500"):
            await ck.casefiles.list()


async def test_an_answer_that_is_not_json_is_told() -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=b"hello"))
    async with Casekeeper("http://t", token="t", transport=transport) as ck:
        with pytest.raises(ServerFault, match="is it a casekeeper"):
            await ck.casefiles.list()


async def test_a_stranger_and_a_viewer_are_refused_by_branch(sam: Casekeeper, vera: Casekeeper) -> None:
    casefile_id = await a_casefile(sam)
    with pytest.raises(NotFound):
        await vera.casefiles.get(casefile_id)
    granted = await sam.permissions.grant(casefile_id, "vera@example.com", "viewer")
    assert granted.role == "viewer"
    with pytest.raises(Denied) as refusal:
        await vera.run_tool(casefile_id, "note_add", text="x")
    assert refusal.value.problem["needed_role"] == "editor"


async def test_what_does_not_fit_is_named_before_anything_is_sent(sam: Casekeeper, network: Network) -> None:
    with pytest.raises(Invalid) as refusal:
        await sam.casefiles.create("")
    assert [e.field for e in refusal.value.errors] == ["payload.title"]
    assert network.paths == []


async def test_parameters_that_do_not_fit_are_named_by_the_server(sam: Casekeeper) -> None:
    with pytest.raises(Invalid) as refusal:
        await sam.run_tool(await a_casefile(sam), "mail_search", query="x", limit=0)
    assert [e.field for e in refusal.value.errors] == ["payload.operation.parameters.limit"]


async def test_a_failed_operation_is_a_result_until_it_is_asked_to_be_an_error(sam: Casekeeper) -> None:
    result = await sam.run_tool(await a_casefile(sam), "raises", message="out of ink")
    assert result.success is False
    with pytest.raises(OperationFailed, match="out of ink") as failure:
        result.raise_for_failure()
    assert failure.value.result is result


# Places and people


async def test_a_casefile_from_its_making_to_its_end(sam: Casekeeper, vera: Casekeeper) -> None:
    await vera.casefiles.list()
    casefile = await sam.casefiles.create("Rent", description="Flat 4", tags=["home"], public_role="none")
    changed = await sam.casefiles.update(casefile.casefile_id, title="Rent dispute", expected_version=1)
    assert (changed.title, changed.description, changed.tags, changed.version) == (
        "Rent dispute",
        "Flat 4",
        ["home"],
        2,
    )
    with pytest.raises(Conflict) as stale:
        await sam.casefiles.update(casefile.casefile_id, title="Too late", expected_version=1)
    assert stale.value.problem["current_version"] == 2
    await sam.permissions.grant(casefile.casefile_id, "vera@example.com", "admin", note="helps")
    moved = await sam.permissions.transfer(casefile.casefile_id, "vera@example.com")
    assert moved.owner == "vera@example.com"
    page = await sam.permissions.list(casefile.casefile_id, limit=1)
    grants = {g.user_id: g.role async for g in sam.permissions.each(casefile.casefile_id)}
    assert (page.items[0].user_id, page.has_more) == ("sam@example.com", True)
    assert grants == {"sam@example.com": "admin", "vera@example.com": "owner"}
    revoked = await vera.permissions.revoke(casefile.casefile_id, "sam@example.com")
    assert revoked.role is None
    assert (await vera.casefiles.delete(casefile.casefile_id)).deleted
    assert [c async for c in vera.casefiles.each()] == []


async def test_a_dry_run_says_why_not(sam: Casekeeper) -> None:
    casefile_id = await a_casefile(sam)
    verdict = await sam.permissions.check(casefile_id, tool("nothing_like_it"))
    assert (verdict.allowed, verdict.check) == (False, "what")
    assert (await sam.permissions.check(casefile_id)).allowed


async def test_operators_look_after_accounts(server: Server, network: Network) -> None:
    first = server.first_login
    assert first is not None
    async with Casekeeper(
        "http://t", user_id=first.user_id, password=first.password, transport=network
    ) as ck:
        await ck.accounts.create("new@example.com", password=PASSWORD, display_name="New")
        assert (await ck.accounts.update("new@example.com", display_name="Newer")).display_name == "Newer"
        assert not (await ck.accounts.deactivate("new@example.com")).is_active
        assert [a.user_id async for a in ck.accounts.each()] == ["new@example.com", first.user_id]
        key = await ck.keys.create("bot", user_id=first.user_id)
        assert (await ck.keys.revoke(key.key_id)).revoked_at is not None


async def test_the_catalogue_tells_what_there_is(sam: Casekeeper) -> None:
    assert {"note_add", "gmail_search"} <= {entry.name for entry in await sam.catalog()}


# Work


async def test_a_session_from_its_opening_to_its_close(sam: Casekeeper) -> None:
    casefile_id = await a_casefile(sam)
    created = await sam.sessions.create(casefile_id, title="Monday", visibility="casefile")
    ran = await sam.sessions.execute(tool("echo", value=1), session_id=created.session_id)
    detail = await sam.sessions.get(created.session_id, view="journal", kinds=["started", "succeeded"])
    assert detail.events is not None
    assert [type(e) for e in detail.events.items] == [ExecutionEvent] * 2
    assert [s.session_id async for s in sam.sessions.each(casefile_id=casefile_id)] == [created.session_id]
    assert (await sam.operations.get(ran.event_id)).outputs == 1
    assert await sam.operations.part(ran.event_id, "inputs") == {"value": 1}
    found = await sam.events.query(casefile_id=casefile_id, operation_name="echo")
    assert [e.event_id for e in found.items] == [ran.event_id]
    closed = await sam.sessions.close(created.session_id, reason="done")
    assert closed.statistics.operations.succeeded == 1
    assert (await sam.sessions.get(created.session_id, include_events=False)).events is None


async def test_all_of_a_long_list_comes_page_by_page(sam: Casekeeper, network: Network) -> None:
    casefile_id = await a_casefile(sam)
    session = await sam.sessions.create(casefile_id)
    await asyncio.gather(
        *(sam.sessions.execute(tool("noop"), session_id=session.session_id) for _ in range(210))
    )
    events = [e async for e in sam.events.each(casefile_id=casefile_id, operation_name="noop")]
    assert len({e.event_id for e in events}) == 210
    assert network.count(VERBS["events/query"].path) == 2


async def test_an_operation_in_the_background_can_be_cancelled(sam: Casekeeper, workshop: Workshop) -> None:
    casefile_id = await a_casefile(sam)
    begun = await sam.sessions.execute(tool("waits"), casefile_id=casefile_id, mode="background")
    assert (begun.status, begun.success) == ("running", None)
    assert begun.raise_for_failure() is begun
    ended = await sam.operations.cancel(begun.event_id, reason="enough")
    assert ended.error is not None
    assert ended.error.type == "cancelled"


# The package


@pytest.mark.parametrize("name", [verb.name for verb in VERBS.values() if verb.command])
async def test_any_verb_can_be_called_by_its_name(sam: Casekeeper, name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        await sam.call(name, {"no_such_field": 1})
    assert "payload.no_such_field" in {error.field for error in refusal.value.errors}


async def test_a_verb_that_is_called_by_its_name_gives_its_result(sam: Casekeeper) -> None:
    made = await sam.call("casefiles/create", {"title": "Tax 2024"}, request_id="once")
    again = await sam.call("casefiles/create", {"title": "Tax 2024"}, request_id="once")
    assert (type(made), again) == (CasefileView, made)


def test_importing_the_sdk_loads_neither_server_nor_models() -> None:
    heavy = ["fastapi", "sqlalchemy", "joserfc", "argon2", "casekeeper.server", "casekeeper.execution"]
    program = f"import sys, casekeeper.client; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_public_names_are_these() -> None:
    assert sorted(client.__all__) == [
        "ApiError",
        "Casekeeper",
        "Conflict",
        "Denied",
        "FieldProblem",
        "Gone",
        "Invalid",
        "Limited",
        "NotFound",
        "OperationFailed",
        "Progress",
        "Retry",
        "ServerFault",
        "TooLarge",
        "Unauthenticated",
        "Unavailable",
        "Unreachable",
        "agent",
        "new_request_id",
        "tool",
    ]


def test_waits_grow_and_stay_within_bounds() -> None:
    retry = Retry(first_wait=timedelta(seconds=1), longest_wait=timedelta(seconds=5))
    for tried, most in ((1, 1), (2, 2), (3, 4), (4, 5), (9, 5)):
        assert most / 2 <= retry.wait_s(tried) <= most
    assert QUICK.tries == 5
