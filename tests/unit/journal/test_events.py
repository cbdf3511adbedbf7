from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from casekeeper.journal.chain import SALT_BYTES, canonical, commitment
from casekeeper.journal.events import (
    TERMINAL,
    ExecutionEvent,
    Fact,
    Kind,
    Payload,
    Permission,
    StoredFact,
)

NOW = datetime(2025, 10, 23, 12, tzinfo=UTC)
BARE = Fact(
    casefile_id="cf_251023_5acf44",
    session_id="ts_251023_ecomcf44_9607c3",
    event_id="evt_1",
    kind=Kind.OPENED,
    actor="usr_1",
    started_at=NOW,
    payload=Payload.of(b"{}"),
)
FULL = replace(
    BARE,
    kind=Kind.FAILED,
    ended_at=NOW + timedelta(milliseconds=1500),
    parent_event_id="evt_0",
    operation_type="tool",
    operation_name="note_add",
    request_id="req_1",
    permission=Permission("editor", "token", NOW),
    is_tainted=True,
    usage={"input_tokens": 3, "cost": "0.01"},
    error_type="operation_raised",
    started_seq=2,
    inputs_commit="ab" * 32,
    conversation="cd" * 32,
    waited_ms=300,
)
ALWAYS = {"v", "casefile_id", "session_id", "seq", "event_id", "kind", "actor", "started_at"}

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXTS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=3)


def stored(fact: Fact, seq: int = 1, **more: Any) -> StoredFact:
    fields: dict[str, Any] = {
        "actor_user_id": None,
        "salt": fact.payload.salt,
        "body": fact.payload.body,
        "blob": fact.payload.blob,
        "size": fact.payload.size,
        **more,
    }
    return StoredFact(fact.session_id, seq, fact.at_us, canonical(fact.header(seq)), b"\x01" * 32, **fields)


def test_a_bare_header_has_nothing_but_what_is_always_there():
    assert set(BARE.header(1)) == ALWAYS


def test_a_full_header_has_every_field_of_the_format():
    optional = {
        "ended_at",
        "duration_ms",
        "parent_event_id",
        "operation_type",
        "operation_name",
        "request_id",
        "permission",
        "tainted",
        "usage",
        "error_type",
        "started_seq",
        "inputs_commit",
        "conversation",
        "waited_ms",
    }

    assert set(FULL.header(7)) == ALWAYS | optional


def test_a_header_holds_no_null_and_no_float():
    parsed = from_json(canonical(FULL.header(1)))

    assert not [v for v in [*parsed.values(), *parsed["usage"].values()] if v is None or isinstance(v, float)]


def test_the_permission_says_role_source_and_when_it_was_read():
    assert FULL.header(1)["permission"] == {
        "role": "editor",
        "source": "token",
        "checked_at": "2025-10-23T12:00:00.000000Z",
    }


def test_a_duration_is_in_whole_milliseconds():
    assert FULL.duration_ms == 1500


def test_what_has_not_ended_has_no_duration():
    assert BARE.duration_ms is None


def test_a_clock_that_steps_back_makes_no_negative_duration():
    assert replace(FULL, ended_at=NOW - timedelta(seconds=3)).duration_ms == 0


def test_a_fact_comes_to_be_when_it_ends_else_when_it_starts():
    assert (FULL.at_us - BARE.at_us) == 1_500_000


def test_every_kind_of_the_contract_that_ends_an_operation_is_terminal():
    assert {k.value for k in TERMINAL} == {
        "succeeded",
        "failed",
        "cancelled",
        "timed_out",
        "interrupted",
        "denied",
    }


@given(st.binary())
def test_a_payload_commits_to_its_bytes(body: bytes):
    payload = Payload.of(body)

    assert len(payload.salt) == SALT_BYTES
    assert payload.commit == commitment(payload.salt, body)
    assert (payload.body, payload.size, payload.blob) == (body, len(body), None)


def test_a_payload_of_fields_leaves_out_what_is_none():
    assert Payload.of_fields(inputs={"a": None}, error=None).body == b'{"inputs":{"a":null}}'


def test_a_payload_of_fields_never_holds_nan():
    assert Payload.of_fields(inputs=[float("nan"), float("inf")]).body == b'{"inputs":[null,null]}'


def merged(fact: StoredFact) -> dict[str, Any]:
    """The slow way: parse everything, then put it together."""
    result: dict[str, Any] = {**from_json(fact.header), "hash": fact.hash.hex()}
    if fact.actor_user_id:
        result["actor_user_id"] = fact.actor_user_id
    own = "outputs" if "ended_at" in result else "inputs"
    places = (
        (fact.body, fact.blob, fact.size, own),
        (fact.inputs, fact.inputs_blob, fact.inputs_size, "inputs"),
    )
    for body, blob, size, name in places:
        if blob is not None:
            result[name] = {"blob": blob, "size": size}
        elif body is not None:
            result |= from_json(body)
    return result


@given(
    st.sampled_from([BARE, FULL]),
    st.one_of(st.none(), VALUES.map(lambda v: to_json({"outputs": v})), st.just(b"{}")),
    st.one_of(st.none(), OBJECTS.map(lambda v: to_json({"inputs": v}))),
    st.sampled_from([None, "sam@example.com"]),
    TEXTS,
)
def test_splicing_equals_parsing_and_merging(
    fact: Fact, body: bytes | None, inputs: bytes | None, user: str | None, name: str
):
    fact = replace(fact, request_id=name)
    row = stored(fact, body=body, inputs=inputs, actor_user_id=user)

    assert from_json(row.json()) == merged(row)


@given(VALUES, VALUES)
def test_what_is_spliced_is_an_execution_event(outputs: Any, inputs: Any):
    row = stored(FULL, body=to_json({"outputs": outputs}), inputs=to_json({"inputs": inputs}))

    event = ExecutionEvent.model_validate_json(row.json())

    assert (event.outputs, event.inputs) == (outputs, inputs)


@given(VALUES)
def test_no_member_is_said_twice(outputs: Any):
    row = stored(FULL, body=to_json({"outputs": outputs}), inputs=to_json({"inputs": {}}))
    names = [name for name, _ in pairs(row.json())]

    assert len(names) == len(set(names))


def pairs(text: bytes) -> list[tuple[str, Any]]:
    import json

    found: list[list[tuple[str, Any]]] = []
    json.loads(text, object_pairs_hook=lambda p: found.append(p))
    return found[-1]


def test_an_erased_payload_leaves_the_header_readable():
    event = ExecutionEvent.model_validate_json(stored(FULL, body=None, salt=None, size=0).json())

    assert (event.kind, event.outputs, event.inputs) == (Kind.FAILED, None, None)


@pytest.mark.parametrize(("fact", "name"), [(BARE, "inputs"), (FULL, "outputs")])
def test_a_large_payload_is_named_by_its_blob(fact: Fact, name: str):
    event = from_json(stored(fact, body=None, blob="ab" * 32, size=300_000).json())

    assert event[name] == {"blob": "ab" * 32, "size": 300_000}


def test_large_inputs_of_an_operation_are_named_in_its_ending():
    row = stored(FULL, body=b'{"outputs":1}', inputs_blob="ef" * 32, inputs_size=300_000)

    assert from_json(row.json())["inputs"] == {"blob": "ef" * 32, "size": 300_000}
