import hashlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from casekeeper.journal.chain import SALT_BYTES, canonical, commitment, genesis, link, new_salt

SALTS = st.binary(min_size=SALT_BYTES, max_size=SALT_BYTES)
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
HEADERS = st.recursive(
    st.one_of(WORDS, st.integers(-(10**15) + 1, 10**15 - 1)),
    lambda inner: st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
).flatmap(lambda value: st.dictionaries(WORDS, st.just(value), max_size=4))


def test_salts_have_sixteen_bytes_and_never_repeat():
    salts = {new_salt() for _ in range(1000)}

    assert {len(salt) for salt in salts} == {16}
    assert len(salts) == 1000


@given(SALTS, st.binary())
def test_a_commitment_is_what_the_format_says(salt: bytes, payload: bytes):
    assert commitment(salt, payload) == hashlib.sha256(b"\x00" + salt + payload).digest()


@given(SALTS, SALTS, st.binary())
def test_equal_payloads_cannot_be_told_to_be_equal(one: bytes, other: bytes, payload: bytes):
    assert (commitment(one, payload) == commitment(other, payload)) == (one == other)


def test_a_genesis_is_what_the_format_says():
    wanted = hashlib.sha256(b"casekeeper record 1\ncf_251023_5acf44\nts_1").digest()

    assert genesis("cf_251023_5acf44", "ts_1") == wanted


@given(WORDS, WORDS, WORDS)
def test_sessions_begin_apart(casefile: str, session: str, other: str):
    assert (genesis(casefile, session) == genesis(casefile, other)) == (session == other)


@given(st.binary(min_size=32, max_size=32), st.binary(), st.binary(min_size=32, max_size=32))
def test_a_link_is_what_the_format_says(previous: bytes, header: bytes, commit: bytes):
    assert link(previous, header, commit) == hashlib.sha256(b"\x01" + previous + header + commit).digest()


@given(HEADERS)
def test_canonical_json_is_what_python_writes_from_the_formats_recipe(header: dict[str, Any]):
    recipe = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    assert canonical(header) == recipe


@given(HEADERS)
def test_the_order_of_keys_does_not_count(header: dict[str, Any]):
    assert canonical(dict(reversed(list(header.items())))) == canonical(header)
