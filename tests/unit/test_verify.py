"""The verifier against the published vectors, against the writer, and against every way to tamper with a record."""

import ast
import copy
import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casekeeper import verify as verify_module
from casekeeper.journal.chain import canonical, commitment, genesis, link
from casekeeper.journal.events import Fact, Kind, Payload, Permission
from casekeeper.verify import Report, main, verify

ROOT = Path(__file__).parents[2]
SCRIPT = Path(verify_module.__file__)
PAGE = (ROOT / "docs" / "record-format.md").read_text("utf-8")
VECTORS: dict[str, Any] = json.loads((ROOT / "docs" / "record-vectors.json").read_text("utf-8"))
CASEFILE: str = VECTORS["genesis"]["casefile_id"]
SESSION: str = VECTORS["genesis"]["session_id"]
HEADS: dict[str, tuple[int, str]] = {SESSION: (6, VECTORS["facts"][5]["hash"])}

Line = dict[str, Any]

unhurried = settings(deadline=None)  # how long an example takes on a busy machine is no law of the format


def vectors() -> list[Line]:
    """The vectors' record lines, as objects of the caller's own."""
    return [copy.deepcopy(vector["line"]) for vector in VECTORS["facts"]]


def dump(lines: Iterable[Line]) -> list[str]:
    """Objects as the lines of a file."""
    return [json.dumps(line, ensure_ascii=False) + "\n" for line in lines]


def seal(lines: Iterable[Line]) -> list[Line]:
    """The lines with number and hash made anew by the writer's code: what a forger who holds everything can do."""
    sealed: list[Line] = []
    last: dict[str, tuple[int, bytes]] = {}
    for line in map(copy.deepcopy, lines):
        header = line["header"]
        key = header["session_id"]
        seq, previous = last.get(key, (0, genesis(header["casefile_id"], key)))
        header["seq"] = seq + 1
        if line["salt"] is not None:
            line["commit"] = commitment(bytes.fromhex(line["salt"]), line["payload"].encode()).hex()
        digest = link(previous, canonical(header), bytes.fromhex(line["commit"]))
        line["hash"] = digest.hex()
        last[key] = (seq + 1, digest)
        sealed.append(line)
    return sealed


def kinds(report: Report) -> set[str]:
    """Which kinds of finding a report holds."""
    return {finding.kind for finding in report.findings}


def heads_of(lines: Iterable[Line]) -> dict[str, tuple[int, str]]:
    """The last number and hash of each session."""
    return {line["header"]["session_id"]: (line["header"]["seq"], line["hash"]) for line in lines}


# The vectors, the page and the writer


def test_the_vectors_verify_with_one_payload_erased() -> None:
    report = verify(dump(vectors()), HEADS)

    assert (report.findings, report.exit_code) == ((), 30)
    [session] = report.sessions
    assert session == verify_module.SessionSummary(SESSION, CASEFILE, 6, 6, HEADS[SESSION][1], 1, 0)


def test_the_vectors_verify_without_reserve_once_the_erased_payload_is_back() -> None:
    lines = vectors()
    lines[4]["salt"], lines[4]["payload"] = VECTORS["facts"][4]["salt"], VECTORS["facts"][4]["payload"]

    assert verify(dump(lines), HEADS).exit_code == 0


def test_the_page_prints_the_vectors() -> None:
    [printed] = re.findall(r"```jsonl\n(.*?)```", PAGE, re.DOTALL)

    assert [json.loads(line) for line in printed.splitlines()] == vectors()
    first, erased = VECTORS["facts"][0], VECTORS["facts"][4]
    rows = [f"| {n} | `{v['commit']}` | `{v['hash']}` |" for n, v in enumerate(VECTORS["facts"], 1)]
    canons = [f"| `{c['json']}` | `{c['bytes']}` |" for c in VECTORS["canonical"]]
    worked = [first["header"], first["salt"], first["previous"], first["payload"].encode().hex()]
    before_erasure = [f"{erased['salt']}\n{erased['payload']}\n"]
    expected = [*rows, *canons, *worked, *before_erasure, VECTORS["genesis"]["hash"], VECTORS["head"]]
    assert [text for text in expected if text not in PAGE] == []


def test_the_page_names_every_kind_every_header_field_and_every_finding() -> None:
    at = datetime(2026, 1, 5, tzinfo=UTC)
    names = ("parent_event_id", "request_id", "error_type", "inputs_commit", "conversation")
    fields = dict.fromkeys(names, "x")
    full = replace(_fact(Kind.STARTED, "evt_1", at, b"{}", b"0" * 16), **fields, started_seq=1, ended_at=at)
    full = replace(full, usage={}, operation_type="tool", operation_name="x")
    full = replace(full, permission=Permission("editor", "token", at))
    words = {*full.header(1), *(kind.value for kind in Kind), *verify_module.FindingKind.__args__}

    assert {word for word in words if f"`{word}`" not in PAGE} == set()


def _fact(kind: Kind, event_id: str, at: datetime, payload: bytes, salt: bytes, **more: Any) -> Fact:
    return Fact(
        casefile_id=CASEFILE,
        session_id=SESSION,
        event_id=event_id,
        kind=kind,
        actor="usr_5d1e8a40c27b9f36",
        started_at=at,
        payload=Payload(salt, commitment(salt, payload), len(payload), payload),
        **more,
    )


def _written() -> list[Fact]:
    """The vectors' facts as a room would write them."""
    start = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)

    def at(s: int, us: int = 0) -> datetime:
        return start + timedelta(seconds=s, microseconds=us)

    ids = [vector["line"]["header"]["event_id"] for vector in VECTORS["facts"]]
    secrets = [(vector["payload"].encode(), bytes.fromhex(vector["salt"])) for vector in VECTORS["facts"]]
    search: dict[str, Any] = {
        "operation_type": "tool",
        "operation_name": "mail_search",
        "request_id": "req-1",
        "permission": Permission("editor", "token", at(1)),
    }
    send = search | {"operation_name": "gmail_send", "request_id": "req-2"}
    send["permission"] = Permission("editor", "token", at(3))
    read: dict[str, Any] = {
        "operation_type": "agent",
        "operation_name": "letter-reader",
        "request_id": "req-3",
        "permission": Permission("editor", "token", at(5)),
    }
    opened = _fact(Kind.OPENED, ids[0], at(0), *secrets[0])
    started = _fact(Kind.STARTED, ids[1], at(1, 125), *secrets[1], **search)
    succeeded = _fact(Kind.SUCCEEDED, ids[2], at(1, 125), *secrets[2], **search, ended_at=at(1, 42_125))
    succeeded = replace(succeeded, started_seq=2, inputs_commit=started.payload.commit.hex())
    denied = _fact(Kind.DENIED, ids[3], at(3, 200), *secrets[3], **send, ended_at=at(3, 200))
    denied = replace(denied, error_type="policy_denies")
    reading = _fact(Kind.STARTED, ids[4], at(5, 300), *secrets[4], **read)
    failed = _fact(Kind.FAILED, ids[5], at(5, 300), *secrets[5], **read, ended_at=at(35, 300))
    failed = replace(failed, started_seq=5, inputs_commit=reading.payload.commit.hex())
    usage: dict[str, int | str] = {"requests": 1, "input_tokens": 812, "output_tokens": 0, "cost": "0.00041"}
    failed = replace(failed, error_type="model_unavailable", usage=usage)
    return [opened, started, succeeded, denied, reading, failed]


def test_the_writer_makes_exactly_the_vectors() -> None:
    previous = genesis(CASEFILE, SESSION)
    assert previous.hex() == VECTORS["genesis"]["hash"]
    for seq, (fact, vector) in enumerate(zip(_written(), VECTORS["facts"], strict=True), start=1):
        header = canonical(fact.header(seq))
        digest = link(previous, header, fact.payload.commit)

        made = (previous.hex(), header.decode(), fact.payload.commit.hex(), digest.hex())
        assert made == (vector["previous"], vector["header"], vector["commit"], vector["hash"])
        previous = digest


@pytest.mark.parametrize("vector", VECTORS["canonical"])
def test_the_writer_makes_canonical_json_byte_for_byte(vector: dict[str, str]) -> None:
    assert canonical(json.loads(vector["json"])).hex() == vector["bytes"]


HEADER_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(10**15) + 1, 10**15 - 1),
    lambda inner: st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=8,
)


@unhurried
@given(st.dictionaries(st.text("abcé\uffee\U0001f600", min_size=8), HEADER_VALUES, max_size=4))
def test_writer_and_verifier_agree_on_any_header(more: dict[str, Any]) -> None:
    [first] = seal([vectors()[0] | {"header": vectors()[0]["header"] | more}])

    assert verify([json.dumps(first)]).exit_code == 0


# Tampering with the vectors


def _edit(n: int, field: str, value: object) -> Callable[[list[Line]], object]:
    def edit(lines: list[Line]) -> None:
        lines[n]["header"][field] = value

    return edit


def _copy_secret(lines: list[Line]) -> None:
    lines[1]["salt"], lines[1]["payload"] = lines[2]["salt"], lines[2]["payload"]


def _swap_payloads(lines: list[Line]) -> None:
    lines[1]["payload"], lines[2]["payload"] = lines[2]["payload"], lines[1]["payload"]


def _swap_commits(lines: list[Line]) -> None:
    for key in ("salt", "payload", "commit"):
        lines[1][key], lines[2][key] = lines[2][key], lines[1][key]


def _reorder(lines: list[Line]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def _insert(lines: list[Line]) -> None:
    forged = copy.deepcopy(lines[3])
    forged["header"]["operation_name"] = "gmail_get"
    lines.insert(4, forged)


def _insert_and_renumber(lines: list[Line]) -> None:
    lines.insert(4, copy.deepcopy(lines[3]))
    for seq, line in enumerate(lines, start=1):
        line["header"]["seq"] = seq


def _set(n: int, key: str, value: object) -> Callable[[list[Line]], object]:
    def change(lines: list[Line]) -> None:
        lines[n][key] = value

    return change


def _drop(*numbers: int) -> Callable[[list[Line]], object]:
    def drop(lines: list[Line]) -> None:
        lines[:] = [line for line in lines if line["header"]["seq"] not in numbers]

    return drop


TAMPERED: dict[str, tuple[Callable[[list[Line]], object], set[str], int]] = {
    "a name in a header": (_edit(1, "operation_name", "mail_get"), {"tampered"}, 40),
    "a single bit in a header": (_edit(0, "actor", "usr_5d1e8a40c27b9f37"), {"tampered"}, 40),
    "a time in a header": (_edit(5, "ended_at", "2026-01-05T09:30:34.000300Z"), {"tampered"}, 40),
    "a header field more": (_edit(0, "request_id", "req-0"), {"tampered"}, 40),
    "a kind": (_edit(5, "kind", "succeeded"), {"tampered"}, 40),
    "a casefile": (_edit(3, "casefile_id", "cf_260105_000000"), {"tampered"}, 40),
    "a payload": (_set(2, "payload", '{"outputs":{"messages":[],"source":"archive"}}'), {"tampered"}, 40),
    "an empty payload": (_set(2, "payload", ""), {"tampered"}, 40),
    "a salt": (_set(2, "salt", "0" * 32), {"tampered"}, 40),
    "a salt reused": (_set(2, "salt", VECTORS["facts"][1]["salt"]), {"tampered"}, 40),
    "a payload with its salt, copied": (_copy_secret, {"tampered"}, 40),
    "payloads swapped": (_swap_payloads, {"tampered"}, 40),
    "payloads swapped with their commitments": (_swap_commits, {"tampered", "unpaired"}, 40),
    "the commitment of an erased payload": (_set(4, "commit", "0" * 64), {"tampered", "unpaired"}, 40),
    "a hash": (_set(3, "hash", "0" * 64), {"tampered"}, 40),
    "the last hash": (_set(5, "hash", "0" * 64), {"tampered", "diverges"}, 40),
    "facts re-ordered": (_reorder, {"gap", "tampered"}, 40),
    "a fact repeated": (lambda lines: lines.insert(3, lines[2]), {"tampered"}, 40),
    "a fact inserted": (_insert, {"tampered"}, 40),
    "a fact inserted, numbers moved up": (_insert_and_renumber, {"tampered", "unpaired", "diverges"}, 40),
    "the first fact dropped": (_drop(1), {"gap"}, 41),
    "a started fact dropped": (_drop(2), {"gap"}, 41),
    "a terminal fact dropped": (_drop(3), {"gap"}, 41),
    "several facts dropped": (_drop(2, 4), {"gap"}, 41),
    "the tail cut": (_drop(6), {"diverges"}, 42),
    "everything gone": (_drop(1, 2, 3, 4, 5, 6), {"diverges"}, 42),
    "a fact moved to another session": (_edit(3, "session_id", "ts_260105_other_000000"), {"gap"}, 41),
    "the first fact of another session": (_edit(0, "session_id", "ts_x"), {"gap", "tampered"}, 40),
}


@pytest.mark.parametrize(("tamper", "found", "code"), TAMPERED.values(), ids=TAMPERED.keys())
def test_a_tampered_vector_is_found(
    tamper: Callable[[list[Line]], object], found: set[str], code: int
) -> None:
    lines = vectors()
    tamper(lines)

    report = verify(dump(lines), HEADS)

    assert (kinds(report), report.exit_code) == (found, code)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("field", ["actor", "event_id", "kind", "session_id", "started_at"])
def test_any_changed_letter_in_any_header_is_found(number: int, field: str) -> None:
    text: str = vectors()[number]["header"][field]
    for place in range(len(text)):
        lines = vectors()
        lines[number]["header"][field] = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]

        assert verify(dump(lines)).exit_code in (40, 41)


def test_a_rewritten_record_passes_alone_and_diverges_from_a_kept_head() -> None:
    lines = vectors()
    lines[3]["header"]["operation_name"] = "gmail_get"
    rewritten = dump(seal(lines))

    assert verify(rewritten).exit_code == 30
    assert [(f.session_id, f.seq, f.kind) for f in verify(rewritten, HEADS).findings] == [
        (SESSION, 6, "diverges")
    ]


def test_a_cut_tail_passes_alone_and_diverges_from_a_kept_head() -> None:
    cut = dump(vectors()[:4])

    assert verify(cut).exit_code == 0
    assert verify(cut, HEADS).exit_code == 42


def test_a_record_that_went_on_contains_an_earlier_head() -> None:
    assert verify(dump(vectors()), {SESSION: (4, VECTORS["facts"][3]["hash"])}).findings == ()


def test_a_session_moved_to_another_casefile_is_found_at_its_first_fact() -> None:
    lines = vectors()
    for line in lines:
        line["header"]["casefile_id"] = "cf_260105_000000"

    assert [f.seq for f in verify(dump(lines)).findings] == [1, 2, 3, 4, 5, 6]


def test_a_changed_fact_does_not_bring_down_those_after_it() -> None:
    lines = vectors()
    lines[1]["header"]["request_id"] = "req-9"

    assert [(f.seq, f.kind) for f in verify(dump(lines)).findings] == [(2, "tampered")]


# Rules about operations, in records whose hashes are right


def _without(lines: list[Line], *numbers: int) -> list[Line]:
    return [line for line in lines if line["header"]["seq"] not in numbers]


def test_an_end_without_a_start_is_found() -> None:
    report = verify(dump(seal(_without(vectors(), 2))))

    assert [(f.seq, f.kind) for f in report.findings] == [(2, "unpaired"), (5, "unpaired")]
    assert report.exit_code == 40


def test_a_second_end_is_found() -> None:
    lines = vectors()
    lines.insert(3, copy.deepcopy(lines[2]))
    lines[3]["header"]["kind"] = "failed"

    assert (4, "unpaired") in [(f.seq, f.kind) for f in verify(dump(seal(lines))).findings]


def test_a_second_start_of_an_open_operation_is_found() -> None:
    lines = vectors()[:2]

    report = verify(dump(seal([*lines, lines[1]])))

    assert [(f.seq, f.kind) for f in report.findings] == [(3, "unpaired")]


@pytest.mark.parametrize(("field", "value"), [("started_seq", 1), ("inputs_commit", "0" * 64)])
def test_an_end_that_refers_to_another_start_is_found(field: str, value: object) -> None:
    lines = vectors()
    lines[2]["header"][field] = value

    assert [(f.seq, f.kind) for f in verify(dump(seal(lines))).findings] == [(3, "unpaired")]


@pytest.mark.parametrize("field", ["started_seq", "inputs_commit"])
def test_an_end_that_does_not_say_what_it_ends_is_found(field: str) -> None:
    lines = vectors()
    del lines[2]["header"][field]

    assert [(f.seq, f.kind) for f in verify(dump(seal(lines))).findings] == [(3, "unpaired")]


def test_an_end_in_another_session_than_its_start_is_found() -> None:
    lines = vectors()
    lines[2]["header"]["session_id"] = "ts_260105_other_000000"

    found = [(f.session_id, f.kind) for f in verify(dump(seal(lines))).findings]

    assert ("ts_260105_other_000000", "unpaired") in found


def test_a_denial_midway_ends_its_operation() -> None:
    lines = vectors()[:3]
    lines[2]["header"]["kind"] = "denied"

    report = verify(dump(seal(lines)))

    assert (report.exit_code, report.sessions[0].open) == (0, 0)


def test_an_operation_that_has_not_ended_is_counted_as_open_and_is_no_finding() -> None:
    report = verify(dump(vectors()[:5]))

    assert (report.findings, report.sessions[0].open) == ((), 1)


def test_a_kind_that_is_not_known_is_a_fact_like_any_other() -> None:
    lines = vectors()
    lines[0]["header"]["kind"] = "settings_changed"

    assert verify(dump(seal(lines))[:1]).exit_code == 0


def test_a_record_of_many_operations_keeps_none_that_ended() -> None:
    start, end = vectors()[1:3]
    many: list[Line] = []
    for n in range(500):
        pair = copy.deepcopy([start, end])
        for line in pair:
            line["header"]["event_id"] = f"evt_{n}"
        pair[1]["header"]["started_seq"] = 2 * n + 1
        many += pair

    assert (verify(dump(seal(many))).findings, verify(dump(seal(many))).sessions[0].open) == ((), 0)


# Lines that are none


def _line(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


FIRST = dump(vectors())[0].strip()
MALFORMED: dict[str, str | bytes] = {
    "an empty line": "\n",
    "not JSON": "nonsense",
    "half a line": FIRST[:100],
    "not an object": "[]",
    "a key missing": json.dumps({k: v for k, v in vectors()[0].items() if k != "commit"}),
    "a key too many": json.dumps(vectors()[0] | {"note": "x"}),
    "a header that is text": json.dumps(vectors()[0] | {"header": VECTORS["facts"][0]["header"]}),
    "a header that is null": json.dumps(vectors()[0] | {"header": None}),
    "another version": _line(FIRST, '"v": 1', '"v": 2'),
    "a version that is true": _line(FIRST, '"v": 1', '"v": true'),
    "a version that is text": _line(FIRST, '"v": 1', '"v": "1"'),
    "a number that is true": _line(FIRST, '"seq": 1', '"seq": true'),
    "a number that is a float": _line(FIRST, '"seq": 1', '"seq": 1.0'),
    "a number with an exponent": _line(FIRST, '"seq": 1', '"seq": 1e0'),
    "a number that is text": _line(FIRST, '"seq": 1', '"seq": "1"'),
    "number zero": _line(FIRST, '"seq": 1', '"seq": 0'),
    "minus zero": _line(FIRST, '"seq": 1', '"seq": 1, "x": -0'),
    "sixteen digits": _line(FIRST, '"seq": 1', '"seq": 1, "x": 1000000000000000'),
    "ten thousand digits": _line(FIRST, '"seq": 1', '"seq": ' + "1" * 10_000),
    "not a number": _line(FIRST, '"seq": 1', '"seq": 1, "x": NaN'),
    "a float in a header": _line(FIRST, '"seq": 1', '"seq": 1, "usage": {"cost": 0.5}'),
    "a null in a header": _line(FIRST, '"seq": 1', '"seq": 1, "x": null'),
    "a list in a header": _line(FIRST, '"seq": 1', '"seq": 1, "x": []'),
    "a key twice": _line(FIRST, '"seq": 1', '"seq": 1, "seq": 1'),
    "a key twice inside": _line(FIRST, '"seq": 1', '"seq": 1, "usage": {"a": 1, "a": 1}'),
    "an ill-typed reference": _line(FIRST, '"seq": 1', '"seq": 1, "started_seq": "1"'),
    "an ill-typed commitment": _line(FIRST, '"seq": 1', '"seq": 1, "inputs_commit": "1"'),
    "a kind that is missing": _line(FIRST, '"kind": "opened", ', ""),
    "a line break in an id": _line(FIRST, CASEFILE, CASEFILE + "\\nintact"),
    "an id without end": _line(FIRST, CASEFILE, "c" * 129),
    "a hash that is no hex": json.dumps(vectors()[0] | {"hash": "x" * 64}),
    "a hash in capitals": json.dumps(vectors()[0] | {"hash": VECTORS["facts"][0]["hash"].upper()}),
    "a hash that is too short": json.dumps(vectors()[0] | {"hash": "0" * 63}),
    "a commitment that is a number": json.dumps(vectors()[0] | {"commit": 0}),
    "a short salt": json.dumps(vectors()[0] | {"salt": "00" * 15}),
    "a salt alone": json.dumps(vectors()[0] | {"payload": None}),
    "a payload alone": json.dumps(vectors()[0] | {"salt": None}),
    "a payload that is an object": json.dumps(vectors()[0] | {"payload": {}}),
    "half a surrogate pair in a payload": json.dumps(vectors()[0] | {"payload": "\ud800"}),
    "half a surrogate pair in a header": _line(FIRST, '"seq": 1', '"seq": 1, "x": "\\ud800"'),
    "nested without end": "[" * 100_000,
    "nested objects without end": '{"a":' * 100_000,
    "a deep header": _line(FIRST, '"seq": 1', '"seq": 1, "x": ' + '{"a":' * 5_000 + "1" + "}" * 5_000),
    "a byte order mark": "\ufeff" + FIRST,
    "not UTF-8": b"\xff" + FIRST.encode(),
    "UTF-16": FIRST.encode("utf-16"),
}


@pytest.mark.parametrize("line", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_line_that_is_none_is_a_finding_and_never_a_traceback(line: str | bytes) -> None:
    report = verify([line])

    assert [(f.session_id, f.seq, f.kind) for f in report.findings] == [(None, None, "malformed")]
    assert (report.sessions, report.exit_code) == ((), 40)
    assert report.findings[0].message.startswith("line 1: ")


@unhurried
@given(st.binary() | st.text())
def test_nothing_that_is_read_raises(line: str | bytes) -> None:
    assert verify([line]).exit_code == 40


def test_a_file_of_nonsense_does_not_fill_the_memory_and_hides_nothing_graver() -> None:
    gaps = dump(vectors()[0] | {"header": vectors()[0]["header"] | {"seq": 2 * n}} for n in range(1, 1_100))

    assert len(verify(gaps).findings) == 1_000
    assert verify(gaps).exit_code == 41
    assert verify([*gaps, "nonsense"]).exit_code == 40


def test_bytes_and_text_line_breaks_and_spacing_make_no_difference() -> None:
    lines = [json.dumps(dict(reversed(line.items())), ensure_ascii=True, indent=1) for line in vectors()]

    assert verify(line.replace("\n", " ").encode() + b"\r\n" for line in lines) == verify(dump(vectors()))


# Any record, any mutation

ENDS = [Kind.SUCCEEDED, Kind.FAILED, Kind.CANCELLED, Kind.TIMED_OUT, Kind.INTERRUPTED, Kind.DENIED]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def records(draw: st.DrawFn) -> list[Line]:
    """A valid record of one to three sessions, mixed; each session opened, with operations begun, ended or refused."""
    lines: list[Line] = []
    open_: list[tuple[str, str, int, str]] = []
    lengths: dict[str, int] = {}
    for n in range(draw(st.integers(2, 9))):
        session = draw(st.sampled_from(["ts_a", "ts_b", "ts_c"]))
        lengths[session] = lengths.get(session, 0) + 1
        salt, payload = hashlib.sha256(b"%d" % n).hexdigest()[:32], draw(TEXT)
        commit = commitment(bytes.fromhex(salt), payload.encode()).hex()
        header: dict[str, Any] = {
            "v": 1,
            "casefile_id": "cf_1",
            "session_id": session,
            "event_id": f"evt_{n}",
        }
        mine = [start for start in open_ if start[0] == session]
        choice = draw(st.sampled_from(["opened", "started", "denied", "end"]))
        if choice == "end" and mine:
            start = draw(st.sampled_from(mine))
            open_.remove(start)
            kind = draw(st.sampled_from(ENDS)).value
            header |= {"event_id": start[1], "kind": kind, "started_seq": start[2], "inputs_commit": start[3]}
        else:
            header |= {"kind": "started" if choice == "end" else choice, "actor": draw(TEXT)}
            if header["kind"] == "started":
                open_.append((session, header["event_id"], lengths[session], commit))
        lines.append({"header": header, "hash": "", "salt": salt, "payload": payload, "commit": commit})
    return seal(lines)


@unhurried
@given(records())
def test_what_the_writer_chains_verifies(lines: list[Line]) -> None:
    report = verify(dump(lines), heads_of(lines))

    assert (report.findings, report.exit_code) == ((), 0)
    assert {s.session_id: (s.head_seq, s.head_hash) for s in report.sessions} == heads_of(lines)


@unhurried
@given(records(), st.randoms(use_true_random=False))
def test_sessions_may_be_mixed_in_any_way(lines: list[Line], chance: random.Random) -> None:
    queues = [[x for x in lines if x["header"]["session_id"] == s] for s in heads_of(lines)]
    mixed: list[Line] = []
    while queues := [queue for queue in queues if queue]:
        mixed.append(chance.choice(queues).pop(0))

    assert verify(dump(mixed), heads_of(lines)).exit_code == 0


@unhurried
@given(records(), st.data())
def test_an_erased_payload_verifies_as_erased(lines: list[Line], data: st.DataObject) -> None:
    line = data.draw(st.sampled_from(lines))
    line["salt"] = line["payload"] = None

    assert verify(dump(lines), heads_of(lines)).exit_code == 30


def _mutate_value(value: Any, draw: st.DrawFn) -> Any:
    if isinstance(value, int):
        return value + draw(st.integers(1, 9))
    return draw(TEXT.filter(lambda text: text != value))


@st.composite
def mutated(draw: st.DrawFn) -> tuple[list[Line], dict[str, tuple[int, str]]]:
    """A valid record with one thing changed, and the heads it had."""
    lines = draw(records())
    heads = heads_of(lines)
    n = draw(st.integers(0, len(lines) - 1))
    line = lines[n]
    same = [
        i for i, other in enumerate(lines) if other["header"]["session_id"] == line["header"]["session_id"]
    ]
    match draw(
        st.sampled_from(["edit", "add", "remove", "outer", "drop", "repeat", "swap", "secret", "forge"])
    ):
        case "edit":
            name = draw(st.sampled_from(sorted(line["header"])))
            line["header"][name] = _mutate_value(line["header"][name], draw)
        case "add":
            line["header"][draw(TEXT.filter(lambda name: name not in line["header"]))] = draw(TEXT)
        case "remove":
            del line["header"][draw(st.sampled_from(sorted(line["header"])))]
        case "outer":
            name = draw(st.sampled_from(["hash", "salt", "payload", "commit"]))
            line[name] = draw(st.none() | TEXT.filter(lambda text: text != line[name]))
        case "drop":
            del lines[n]
        case "repeat":
            lines.insert(draw(st.integers(0, len(lines))), line)
        case "swap":
            other = draw(st.sampled_from([*(i for i in same if i != n), None]))
            if other is None:  # nothing to swap with: swap the session instead
                line["header"]["session_id"] = "ts_d"
            else:
                lines[n], lines[other] = lines[other], lines[n]
        case "secret":
            donor = lines[draw(st.integers(0, len(lines) - 1))]
            name = draw(st.sampled_from(["salt", "hash"]))
            line[name] = donor[name] if donor is not line else "0" * len(line[name])
        case _:
            forged = copy.deepcopy(line)
            forged["header"]["seq"] += draw(st.integers(0, 3))
            forged["header"]["event_id"] = "evt_forged"
            lines.insert(draw(st.integers(0, len(lines))), forged)
    return lines, heads


@unhurried
@given(mutated())
def test_any_single_mutation_of_any_record_is_found(
    case: tuple[list[Line], dict[str, tuple[int, str]]],
) -> None:
    lines, heads = case

    assert verify(dump(lines), heads).exit_code >= 40


@unhurried
@given(records(), st.data())
def test_any_changed_byte_is_found_unless_the_line_still_says_the_same(
    lines: list[Line], data: st.DataObject
) -> None:
    n = data.draw(st.integers(0, len(lines) - 1))
    raw = [line.encode() for line in dump(lines)]
    changed = bytearray(raw[n].rstrip(b"\n"))
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != changed[place]))
    raw[n] = bytes(changed)

    assert verify(raw, heads_of(lines)).exit_code >= 40 or json.loads(raw[n]) == lines[n]


# The command


def _run(*arguments: str, script: Path = SCRIPT, lines: Sequence[str] = ()) -> tuple[int, str]:
    command = [sys.executable, "-I", "-S", str(script), *arguments]
    done = subprocess.run(
        command, input="".join(lines).encode(), capture_output=True, check=False, timeout=20
    )
    return done.returncode, (done.stdout + done.stderr).decode()


def test_a_copy_runs_alone_with_nothing_installed(tmp_path: Path) -> None:
    alone = Path(shutil.copy(SCRIPT, tmp_path / "verify.py"))

    code, printed = _run("--head", VECTORS["head"], "-", script=alone, lines=dump(vectors()))

    assert (code, printed.splitlines()) == (
        30,
        [
            f"session of {CASEFILE}: facts 6, erased 1, open 0, head {VECTORS['head']}",
            "intact, with payloads erased: sessions 1, findings 0, code 30",
        ],
    )


def test_it_imports_the_standard_library_only() -> None:
    tree = ast.parse(SCRIPT.read_text("utf-8"))
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == set()


def test_several_files_are_one_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_text("".join(dump(vectors()[:3])).rstrip("\n"), "utf-8")
    second.write_text("".join(dump(vectors()[3:])), "utf-8")

    assert main([str(first), str(second)]) == 30
    assert capsys.readouterr().out.endswith("code 30\n")


def test_findings_are_printed_with_session_and_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.jsonl"
    record.write_text("".join([*dump(vectors()[:1]), "{}\n", *dump(vectors()[3:4])]), "utf-8")

    assert main([str(record)]) == 40
    assert capsys.readouterr().out.splitlines()[1:] == [
        "malformed: line 2: it does not have exactly the keys of a record line",
        f"gap: {SESSION} fact 4: it comes right after fact 1",
        "NOT intact: sessions 1, findings 2, code 40",
    ]


def test_a_cut_tail_is_found_on_the_command_line_with_a_head() -> None:
    code, printed = _run("--head", VECTORS["head"], "-", lines=dump(vectors()[:4]))

    assert code == 42
    assert f"diverges: {SESSION} fact 6: the head that was kept is not here" in printed


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing.jsonl")]) == 2
    assert capsys.readouterr().err.startswith("cannot read the record: ")


@pytest.mark.parametrize(
    "heads",
    [["nonsense"], [VECTORS["head"][:-1]], [VECTORS["head"], VECTORS["head"]]],
    ids=["ill-formed", "shortened", "two"],
)
def test_a_head_that_would_not_be_checked_is_refused(heads: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main([*(word for head in heads for word in ("--head", head)), "-"])

    assert refused.value.code == 2
