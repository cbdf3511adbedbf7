"""The SDK where calls take long: streams that break, uploads, imports, records."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from casekeeper import client
from casekeeper.client import (
    Casekeeper,
    NotFound,
    Progress,
    Unreachable,
    tool,
)
from casekeeper.client.results import Result
from casekeeper.journal.events import ExecutionEvent
from casekeeper.sessions.streamed import StreamedDelta
from casekeeper.verbs import VERBS
from casekeeper.verify import verify
from tests.doors.network import Network, cut_after, reply_lost, unreached
from tests.support import Workshop

SAMPLE = Path(str(client.__file__)).parents[1] / "reading" / "sample.mbox"
EXECUTE, TOKEN, REFRESH = VERBS["sessions/execute"].path, VERBS["auth/token"].path, VERBS["auth/refresh"].path


async def a_casefile(ck: Casekeeper) -> str:
    return (await ck.casefiles.create("Tax 2024")).casefile_id


def shown(items: list[ExecutionEvent | StreamedDelta | Result]) -> list[str]:
    """A stream's items in a word each."""
    words: list[str] = []
    for item in items:
        match item:
            case ExecutionEvent():
                words.append(f"{item.operation_name} {item.kind}")
            case StreamedDelta():
                words.append("delta")
            case _:
                words.append(f"result {item.outputs}")
    return words


async def test_a_streamed_operation_shows_its_children_and_ends_with_the_result(sam: Casekeeper) -> None:
    operation = tool("nested", name="progress", parameters={"steps": 2})
    stream = sam.stream_execute(operation, casefile_id=await a_casefile(sam))
    words = shown([item async for item in stream])
    facts = [word for word in words if word != "delta"]
    assert facts == [
        "nested started",
        "progress started",
        "progress succeeded",
        "nested succeeded",
        "result 2",
    ]
    assert words.count("delta") == 2


@pytest.mark.parametrize(
    "marker", [b"event: started", b'"kind":"succeeded"'], ids=["its first fact", "its child's end"]
)
async def test_a_stream_that_is_cut_goes_on_without_loss_or_repeat(
    sam: Casekeeper, network: Network, workshop: Workshop, marker: bytes
) -> None:
    casefile_id = await a_casefile(sam)
    network.plan(EXECUTE, cut_after(marker))
    operation = tool("nested", name="echo", parameters={"value": 5})
    items = [item async for item in sam.stream_execute(operation, casefile_id=casefile_id)]
    facts = [word for word in shown(items) if word != "delta"]
    assert facts == ["nested started", "echo started", "echo succeeded", "nested succeeded", "result 5"]
    assert workshop.runs["echo"] == 1


async def test_a_stream_whose_beginning_is_lost_still_brings_the_result(
    sam: Casekeeper, network: Network, workshop: Workshop
) -> None:
    network.plan(EXECUTE, reply_lost)
    casefile_id = await a_casefile(sam)
    items = [item async for item in sam.stream_execute(tool("echo", value=3), casefile_id=casefile_id)]
    assert shown(items)[-1] == "result 3"
    assert workshop.runs["echo"] == 1


async def test_following_a_session_survives_cut_connections(sam: Casekeeper, network: Network) -> None:
    session = await sam.sessions.create(await a_casefile(sam))
    network.plan(
        f"/v1/sessions/{session.session_id}/events/stream",
        cut_after(b"opened"),
        cut_after(b"started"),
        unreached,
        cut_after(b"succeeded"),
    )
    seen: list[int] = []

    async def follow() -> None:
        async for item in sam.sessions.stream(session.session_id):
            if isinstance(item, ExecutionEvent):
                seen.append(item.seq)
                if item.seq == 7:
                    return

    async with asyncio.timeout(10):
        following = asyncio.create_task(follow())
        for _ in range(3):
            await sam.sessions.execute(tool("noop"), session_id=session.session_id)
        await following
    assert seen == [1, 2, 3, 4, 5, 6, 7]


async def test_following_ends_when_the_permission_does(sam: Casekeeper, vera: Casekeeper) -> None:
    casefile_id = await a_casefile(sam)
    await sam.permissions.grant(casefile_id, "vera@example.com", "viewer")
    session = await sam.sessions.create(casefile_id, visibility="casefile")
    stream = vera.sessions.stream(session.session_id)
    first = await anext(stream)
    await sam.permissions.revoke(casefile_id, "vera@example.com")
    await sam.sessions.execute(tool("noop"), session_id=session.session_id)
    assert isinstance(first, ExecutionEvent)
    async with asyncio.timeout(10):
        with pytest.raises(NotFound, match="that you may see"):
            await anext(stream)


async def test_a_stream_that_breaks_at_once_again_and_again_is_given_up(
    sam: Casekeeper, network: Network
) -> None:
    session = await sam.sessions.create(await a_casefile(sam))
    path = f"/v1/sessions/{session.session_id}/events/stream"
    network.plan(path, *[cut_after(b"retry")] * 99)
    with pytest.raises(Unreachable, match="again and again"):
        await anext(sam.sessions.stream(session.session_id))


# Files


async def chunks(*parts: bytes) -> AsyncGenerator[bytes]:
    for part in parts:
        yield part


async def test_files_bytes_and_streams_can_be_uploaded(sam: Casekeeper, tmp_path: Path) -> None:
    casefile_id = await a_casefile(sam)
    path = tmp_path / "a.eml"
    path.write_bytes(b"Subject: hi\n\nhello")
    uploads = [
        await sam.documents.upload(casefile_id, path),
        await sam.documents.upload(casefile_id, path.read_bytes(), filename="a.eml"),
        await sam.documents.upload(casefile_id, chunks(b"Subject: hi\n", b"\nhello"), filename="a.eml"),
    ]
    assert len({u.sha256 for u in uploads}) == 1
    assert {u.size for u in uploads} == {18}


async def test_an_upload_is_sent_again_after_a_lost_reply_unless_it_can_be_read_only_once(
    sam: Casekeeper, network: Network
) -> None:
    casefile_id, path = await a_casefile(sam), VERBS["documents/upload"].path
    network.plan(path, unreached, reply_lost)
    assert (await sam.documents.upload(casefile_id, b"12345")).size == 5
    network.plan(path, reply_lost)
    with pytest.raises(Unreachable):
        await sam.documents.upload(casefile_id, chunks(b"12345"))


async def test_an_import_tells_how_far_it_is(sam: Casekeeper) -> None:
    casefile_id = await a_casefile(sam)
    steps: list[Progress] = []
    result = await sam.documents.import_file(casefile_id, SAMPLE, on_progress=steps.append)
    assert result.raise_for_failure().outputs["added"] == 50
    assert steps[0].stage == "upload"
    assert steps[0].total == SAMPLE.stat().st_size
    assert steps[-1] == Progress("import", 50, 50)
    assert {s.unit for s in steps} == {"bytes", "documents"}
    documents = [d async for d in sam.documents.each(casefile_id, kind="mail")]
    assert len(documents) == 41
    assert (await sam.documents.get(casefile_id, documents[0].document_id)).text
    assert len((await sam.documents.list(casefile_id, limit=5)).items) == 5


async def test_a_file_may_be_named_by_a_string(sam: Casekeeper) -> None:
    casefile_id = await a_casefile(sam)
    result = await sam.documents.import_file(casefile_id, str(SAMPLE))
    outputs = result.raise_for_failure().outputs
    assert (outputs["filename"], outputs["added"]) == (SAMPLE.name, 50)


async def test_stopping_an_import_stops_it_on_the_server(sam: Casekeeper) -> None:
    casefile_id = await a_casefile(sam)
    begun = asyncio.Event()

    def told(progress: Progress) -> None:
        if progress.stage == "import":
            begun.set()

    mailbox = b"".join(b"From a\nSubject: %d\n\nhello\n\n" % n for n in range(20_000))
    importing = asyncio.create_task(
        sam.documents.import_file(casefile_id, mailbox, filename="big.mbox", on_progress=told)
    )
    await begun.wait()
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    found = await sam.events.query(casefile_id=casefile_id, operation_name="document_import")
    assert [e.kind for e in found.items] == ["cancelled"]


# The record


async def test_a_record_read_through_the_sdk_verifies(sam: Casekeeper) -> None:
    casefile_id = await a_casefile(sam)
    session_id = (await sam.run_tool(casefile_id, "echo", value="\u2028 and ü")).session_id
    lines = [line async for line in sam.record(session_id)]
    report = verify(lines)
    assert (report.exit_code, [s.facts for s in report.sessions]) == (0, [3])


async def test_a_record_that_is_cut_off_is_an_error_not_a_shorter_record(
    sam: Casekeeper, network: Network
) -> None:
    session_id = (await sam.run_tool(await a_casefile(sam), "noop")).session_id
    network.plan(f"/v1/sessions/{session_id}/record", cut_after(b"opened"))
    with pytest.raises(Unreachable):
        [line async for line in sam.record(session_id)]
