import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.identity.seals import Seals

SEALS = Seals(b"a" * 32)
FIELDS = {"state": "abc", "next": "/"}


def test_what_was_sealed_is_opened_by_every_process_with_the_secret():
    assert Seals(b"a" * 32).open("login", SEALS.seal("login", FIELDS)) == FIELDS


def test_what_is_sealed_cannot_be_read():
    parts = SEALS.seal("login", FIELDS).split(".")

    assert not any(b"abc" in base64.urlsafe_b64decode(part + "==") for part in parts)


def test_nothing_is_sealed_twice_alike():
    assert SEALS.seal("login", FIELDS) != SEALS.seal("login", FIELDS)


def test_a_seal_is_for_one_purpose_and_one_secret():
    sealed = SEALS.seal("login", FIELDS)

    assert SEALS.open("another", sealed) is None
    assert Seals(b"b" * 32).open("login", sealed) is None


@pytest.mark.parametrize(
    "text", ["", ".", "....", "a.b.c.d.e", "x" * 5000, "é", "eyJhbGciOiJub25lIn0....", "\x00"]
)
def test_what_was_never_sealed_is_not_opened(text: str):
    assert SEALS.open("login", text) is None


@given(st.text(max_size=200))
def test_no_text_raises(text: str):
    assert SEALS.open("login", text) is None


@given(st.data())
def test_no_flipped_bit_is_opened(data: st.DataObject):
    parts = SEALS.seal("login", FIELDS).split(".")
    which = data.draw(st.sampled_from([0, 2, 3, 4]))
    raw = bytearray(base64.urlsafe_b64decode(parts[which] + "=="))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    parts[which] = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    assert SEALS.open("login", ".".join(parts)) is None


def test_macs_differ_by_purpose_secret_and_text():
    macs = {
        SEALS.mac("a", "x"),
        SEALS.mac("b", "x"),
        SEALS.mac("a", "y"),
        Seals(b"b" * 32).mac("a", "x"),
    }

    assert (len(macs), {len(mac) for mac in macs}) == (4, {64})
    assert SEALS.mac("a", "x") in macs
