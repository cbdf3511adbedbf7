from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import from_json

from casekeeper.errors import BodyTooLarge
from casekeeper.execution.payloads import INLINE_MAX, TOTAL_MAX, Payloads, parsed
from casekeeper.execution.runner import Ending
from casekeeper.journal.chain import commitment
from casekeeper.journal.events import Failure, Kind, Payload, StoredFact
from casekeeper.operations.operation import Finished
from casekeeper.storage.blobs.directory import DirectoryBlobs

CASEFILE = "cf_251023_5acf44"


@pytest.fixture
def payloads(tmp_path: Path) -> Payloads:
    return Payloads(DirectoryBlobs(tmp_path))


def stored(payload: Payload) -> StoredFact:
    header = f'{{"casefile_id":"{CASEFILE}"}}'.encode()
    return StoredFact("ts_1", 1, 0, header, b"", None, payload.salt, payload.body, payload.blob, payload.size)


def finished(outputs: Any) -> Ending:
    return Ending(Kind.SUCCEEDED, finished=Finished(outputs))


def text_of(json_bytes: int, member: str) -> str:
    """Text whose payload, `{"<member>":"…"}`, has exactly so many bytes."""
    return "x" * (json_bytes - len(f'{{"{member}":""}}'))


async def test_256_kib_are_kept_beside_the_header(payloads: Payloads):
    payload = await payloads.inputs(CASEFILE, text_of(INLINE_MAX, "inputs"))

    assert (payload.size, payload.blob, len(payload.body or b"")) == (INLINE_MAX, None, INLINE_MAX)


async def test_one_byte_more_is_a_blob(payloads: Payloads):
    payload = await payloads.inputs(CASEFILE, text_of(INLINE_MAX + 1, "inputs"))

    assert (payload.size, payload.body, payload.blob) == (INLINE_MAX + 1, None, payload.commit.hex())


async def test_a_blob_is_committed_to_like_any_payload(payloads: Payloads, tmp_path: Path):
    payload = await payloads.inputs(CASEFILE, text_of(INLINE_MAX + 1, "inputs"))

    kept = (tmp_path / CASEFILE / (payload.blob or "")).read_bytes()

    assert commitment(payload.salt, kept) == payload.commit


async def test_a_blob_is_given_back_in_full(payloads: Payloads):
    value = text_of(INLINE_MAX + 1, "inputs")

    fact = stored(await payloads.inputs(CASEFILE, value))

    assert await payloads.part(fact, "inputs") == value


async def test_10_mib_of_inputs_are_taken(payloads: Payloads):
    payload = await payloads.inputs(CASEFILE, text_of(TOTAL_MAX, "inputs"))

    assert payload.size == TOTAL_MAX


async def test_one_byte_more_of_inputs_is_refused(payloads: Payloads, tmp_path: Path):
    with pytest.raises(BodyTooLarge):
        await payloads.inputs(CASEFILE, text_of(TOTAL_MAX + 1, "inputs"))

    assert list(tmp_path.iterdir()) == []


async def test_10_mib_of_outputs_are_kept(payloads: Payloads):
    ending, payload, outputs = await payloads.ending(CASEFILE, finished("x" * (TOTAL_MAX - 2)))

    assert (ending.kind, len(outputs or b""), payload.blob is None) == (Kind.SUCCEEDED, TOTAL_MAX, False)


async def test_one_byte_more_of_outputs_is_a_clean_failure(payloads: Payloads, tmp_path: Path):
    ending, payload, outputs = await payloads.ending(CASEFILE, finished("x" * (TOTAL_MAX - 1)))

    assert ending.failure is not None
    assert (ending.kind, ending.failure.type, ending.finished, outputs) == (
        Kind.FAILED,
        "output_too_large",
        None,
        None,
    )
    assert "error" in from_json(payload.body or b"")
    assert list(tmp_path.iterdir()) == []


class Wayward(BaseModel):
    """Its serialization fails."""

    value: Any = None


def endless() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "make",
    [
        lambda: object(),
        lambda: {"a": {1, object()}},
        endless,
        deep,
        lambda: "\ud800",
        lambda: b"\xff",
        lambda: Wayward(value=object()),
    ],
    ids=["an object", "in a set", "endless", "too deep", "a lone surrogate", "bytes", "in a model"],
)
async def test_what_is_not_json_is_a_clean_failure(payloads: Payloads, make: Any):
    ending, _, outputs = await payloads.ending(CASEFILE, finished(make()))

    assert ending.failure is not None
    assert (ending.failure.type, outputs, len(ending.failure.message) <= 500) == (
        "output_not_json",
        None,
        True,
    )


@pytest.mark.parametrize(
    ("value", "kept"),
    [(float("nan"), b"null"), ([float("inf"), float("-inf")], b"[null,null]"), (None, b"null")],
)
async def test_numbers_that_json_lacks_are_null(payloads: Payloads, value: Any, kept: bytes):
    ending, payload, outputs = await payloads.ending(CASEFILE, finished(value))

    assert (ending.kind, outputs, payload.body) == (Kind.SUCCEEDED, kept, b'{"outputs":%s}' % kept)


async def test_a_failure_keeps_message_and_hint_and_no_outputs(payloads: Payloads):
    failure = Failure(type="operation_raised", message="it broke", retryable=True)

    ending, payload, outputs = await payloads.ending(CASEFILE, Ending(Kind.FAILED, failure=failure))

    assert (ending.failure, outputs) == (failure, None)
    assert from_json(payload.body or b"") == {"error": {"message": "it broke", "retryable": True}}


async def test_a_part_that_is_not_there_is_none(payloads: Payloads):
    fact = stored(await payloads.inputs(CASEFILE, {"a": 1}))

    assert [await payloads.part(fact, name) for name in ("inputs", "outputs")] == [{"a": 1}, None]


async def test_of_an_erased_payload_nothing_is_left(payloads: Payloads):
    inline = StoredFact("ts_1", 1, 0, b"{}", b"", None, None, None, None, 0)
    blob = stored(Payload(b"s" * 16, b"c" * 32, 300_000, None, "gone"))

    assert [await payloads.part(fact, "inputs") for fact in (inline, blob)] == [None, None]


NESTED = st.integers(1, 300).map(lambda depth: b"[" * depth + b"]" * depth)


@given(NESTED)
def test_whatever_depth_was_written_is_read(body: bytes):
    assert isinstance(parsed(body), list)
