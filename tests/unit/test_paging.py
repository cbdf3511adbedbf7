from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from casekeeper.errors import CursorInvalid
from casekeeper.paging import Cursors

CURSORS = Cursors(b"k" * 32)
QUERIES = st.text(max_size=40)
KEYS = st.lists(
    st.one_of(st.integers(-(2**62), 2**62), st.text(st.characters(codec="utf-8"), max_size=60)), max_size=4
)


def raw(cursor: str) -> bytes:
    return urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))


@given(QUERIES, KEYS)
def test_a_cursor_gives_back_what_was_sealed(query: str, keys: list[int | str]):
    assert CURSORS.open(query, CURSORS.seal(query, keys)) == keys


@given(QUERIES, QUERIES, KEYS)
def test_a_cursor_of_another_query_is_refused(query: str, other: str, keys: list[int | str]):
    assume(query != other)

    with pytest.raises(CursorInvalid):
        CURSORS.open(other, CURSORS.seal(query, keys))


@given(KEYS, st.data())
def test_a_flipped_bit_is_refused(keys: list[int | str], data: st.DataObject):
    sealed = bytearray(raw(CURSORS.seal("q", keys)))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8

    with pytest.raises(CursorInvalid):
        CURSORS.open("q", urlsafe_b64encode(bytes(sealed)).decode())


@given(st.text(max_size=200))
@example("")
@example("a")
@example("====")
@example("é")
@example("\x00")
@example("AAAA" * 300)
def test_nothing_but_our_own_cursors_opens(cursor: str):
    with pytest.raises(CursorInvalid):
        CURSORS.open("q", cursor)


@given(KEYS, st.data())
def test_a_cursor_that_was_changed_never_leads_elsewhere(keys: list[int | str], data: st.DataObject):
    cursor = CURSORS.seal("q", keys)
    at = data.draw(st.integers(0, len(cursor) - 1))
    changed = cursor[:at] + data.draw(st.characters()) + cursor[at + 1 :]

    try:
        opened = CURSORS.open("q", changed)
    except CursorInvalid:
        return
    assert opened == keys


def test_a_cursor_of_another_deployment_is_refused():
    with pytest.raises(CursorInvalid):
        CURSORS.open("q", Cursors(b"x" * 32).seal("q", [1]))


def test_a_cursor_survives_a_restart():
    assert Cursors(b"k" * 32).open("q", CURSORS.seal("q", [1, "a"])) == [1, "a"]


def test_a_refused_cursor_names_its_field():
    with pytest.raises(CursorInvalid) as refused:
        CURSORS.open("q", "x")

    assert [e.field for e in refused.value.errors] == ["cursor"]


@given(st.lists(st.integers(-(2**62), 2**62), unique=True, max_size=30), st.integers(1, 10))
def test_pages_lose_and_repeat_nothing(items: list[int], limit: int):
    ordered, seen, cursor = sorted(items), list[int](), None

    while True:
        behind = CURSORS.open("q", cursor)[0] if cursor else None
        rows = [i for i in ordered if behind is None or i > int(behind)][: limit + 1]
        page = CURSORS.page("q", rows, limit, [(i,) for i in rows])
        seen += page.items
        cursor = page.next_cursor
        if not page.has_more:
            break

    assert seen == ordered
    assert cursor is None
