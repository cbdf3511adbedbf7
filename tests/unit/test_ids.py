from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from casekeeper import ids

NOW = datetime(2025, 10, 23, 12, tzinfo=UTC)
# From 2000 to 2090, in milliseconds, of which ids are made.
INSTANTS = st.integers(946_684_800_000, 3_786_912_000_000).map(
    lambda ms: datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)
)
LOCAL = st.text("abcXYZ019._%+'-", min_size=1, max_size=64)
DOMAIN = st.lists(st.text("abcXYZ019-", min_size=1, max_size=20), min_size=1, max_size=4).map(".".join)
USERS = st.builds("{}@{}".format, LOCAL, DOMAIN)


def accepts(kind: Any, value: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        (ids.CasefileId, "cf_251023_5acf44"),
        (ids.SessionId, "ts_251023_ecomcf44_9607c3"),
        (ids.EventId, "evt_0199f0c1a2b3c4d5e6f70"),
        (ids.DocumentId, "doc_0199f0c1a2b3c4d5e6f70"),
        (ids.UploadId, "upl_" + "0a" * 16),
        (ids.KeyId, "key_0123456789ab"),
    ],
)
def test_the_documented_spelling_is_accepted(kind: Any, example: str):
    assert accepts(kind, example)


def test_a_casefile_id_carries_the_day():
    assert ids.new_casefile_id(NOW).startswith("cf_251023_")


def test_a_session_id_carries_day_user_and_casefile_as_in_the_mission():
    session_id = ids.new_session_id(NOW, "sam@example.com", "cf_251023_5acf44")

    assert session_id.startswith("ts_251023_ecomcf44_")


@given(INSTANTS, USERS)
def test_minted_ids_are_well_formed(now: datetime, user: str):
    casefile_id = ids.new_casefile_id(now)

    assert accepts(ids.CasefileId, casefile_id)
    assert accepts(ids.SessionId, ids.new_session_id(now, user, casefile_id))
    assert accepts(ids.EventId, ids.new_event_id(now))
    assert accepts(ids.DocumentId, ids.new_document_id(now))


def test_ids_without_a_date_are_well_formed():
    assert accepts(ids.UploadId, ids.new_upload_id())
    assert accepts(ids.KeyId, ids.new_key_id())
    assert accepts(ids.RequestId, ids.new_request_id())


@given(INSTANTS, st.integers(min_value=1, max_value=10**9))
def test_event_ids_sort_by_age(now: datetime, later_ms: int):
    later = now + timedelta(milliseconds=later_ms)

    assert ids.new_event_id(now) < ids.new_event_id(later)


@pytest.mark.parametrize(
    "mint",
    [
        lambda: ids.new_event_id(NOW),
        lambda: ids.new_document_id(NOW),
        ids.new_upload_id,
        ids.new_key_id,
        ids.new_pseudonym,
        ids.new_request_id,
    ],
)
def test_no_two_ids_are_the_same(mint: Any):
    assert len({mint() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "kind", [ids.CasefileId, ids.SessionId, ids.EventId, ids.DocumentId, ids.UploadId, ids.KeyId]
)
@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "cf_251023_5ACF44",
        "cf_251023_5acf44\n",
        "cf_251023_5acf44 ",
        "cf_251023_5acf4",
        "cf_251023_5acf444",
        "../../etc/passwd",
        "ts_251023_ecomcf44_9607c3\x00",
        "evt_" + "a" * 41,
        "doc_'; DROP TABLE documents --",
        "upl_" + "g" * 32,
        None,
        7,
        ["cf_251023_5acf44"],
    ],
)
def test_what_is_spelled_otherwise_is_no_id(kind: Any, value: Any):
    assert not accepts(kind, value)


@given(USERS)
def test_a_user_id_has_one_spelling(user: str):
    assert ids.canonical_user(user.upper()) == ids.canonical_user(user.lower()) == user.lower()


@given(USERS)
def test_the_canonical_spelling_is_its_own(user: str):
    canonical = ids.canonical_user(user)

    assert ids.canonical_user(canonical) == canonical


def test_a_user_id_may_have_254_characters():
    user = "u" * 64 + "@" + "a" * 189

    assert (len(user), ids.canonical_user(user)) == (254, user)


@pytest.mark.parametrize(
    "user",
    [
        "u" * 64 + "@" + "a" * 190,
        "u" * 65 + "@example.com",
        "",
        "anna",
        "@example.com",
        "anna@",
        "anna@@example.com",
        "anna@example..com",
        "anna@example.com.",
        "anna@example.com\n",
        " anna@example.com",
        "anna smith@example.com",
        "anna@exa_mple.com",
        "аnna@example.com",
        "anna@exämple.com",
        "anna\x00@example.com",
        "anna\ud800@example.com",
        "*",
        "anna@example.com,ben@example.com",
        "<anna@example.com>",
    ],
)
def test_what_is_no_address_is_no_user_id(user: str):
    with pytest.raises(ValueError, match="e-mail"):
        ids.canonical_user(user)


def test_a_user_id_in_a_model_is_kept_in_its_canonical_spelling():
    assert TypeAdapter(ids.UserId).validate_python("Anna@Example.COM") == "anna@example.com"


@pytest.mark.parametrize("request_id", ["", "a" * 129, "a b", "a\n", "ä", "a/b", "a\x00"])
def test_a_request_id_is_short_and_plain(request_id: str):
    assert not accepts(ids.RequestId, request_id)


@pytest.mark.parametrize("request_id", ["a", "9b2f4f0e-0000-4000-8000-000000000000", "A_b.c:d-9", "x" * 128])
def test_a_customary_request_id_is_accepted(request_id: str):
    assert accepts(ids.RequestId, request_id)
