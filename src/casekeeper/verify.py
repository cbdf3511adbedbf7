"""Checks record lines (`docs/record-format.md`) with nothing but the standard library.

The file can be copied out and run alone: `python verify.py [--head ID:SEQ:HASH] FILE...`; `-` reads stdin.
It reads line by line and remembers, per session, the last number and hash and the operations that are open. An
operation is forgotten when it ends, for ended ids would pile up without bound. So a second end of an operation is
found because nothing is open under its id any more; an id that is started anew after its end is not found.
"""

import argparse
import fileinput
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, TypeAlias

FindingKind = Literal["malformed", "tampered", "unpaired", "gap", "diverges"]
_Json: TypeAlias = "str | int | list[_Json] | dict[str, _Json] | None"

_CODES: dict[FindingKind, int] = {"malformed": 40, "tampered": 40, "unpaired": 40, "gap": 41, "diverges": 42}
_ENDS = {"succeeded", "failed", "cancelled", "timed_out", "interrupted", "denied"}
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # also keeps line breaks out of genesis and of what is printed
_SALT = re.compile(r"[0-9a-f]{32}")
_ANY = re.compile(r"(?s:.*)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_INT = re.compile(r"0|-?[1-9][0-9]{0,14}")  # RFC 8259 §6: with more digits, languages come to disagree
_KEPT_PER_KIND = 1_000  # a file of nothing but nonsense must not fill the memory with findings


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a record; session and number are None where a line does not tell them."""

    session_id: str | None
    seq: int | None
    kind: FindingKind
    message: str


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What was read of one session. `open` counts the operations that have started and not ended."""

    session_id: str
    casefile_id: str
    facts: int
    head_seq: int
    head_hash: str
    erased: int
    open: int


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` saw. Of each kind of finding the first 1,000 are kept."""

    sessions: tuple[SessionSummary, ...]
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """The first that applies: 40 tampered or malformed, 41 gap, 42 diverges, 30 payloads erased, 0."""
        code = min((_CODES[finding.kind] for finding in self.findings), default=0)
        return code or (30 if any(session.erased for session in self.sessions) else 0)


class _Fact:
    """The fact of a line; raises ValueError (or RecursionError) if it is not a record line."""

    def __init__(self, line: str | bytes) -> None:
        fields: _Json = _DECODER.decode(line.decode() if isinstance(line, bytes) else line)
        if not isinstance(fields, dict) or fields.keys() != {"header", "hash", "salt", "payload", "commit"}:
            raise ValueError("it does not have exactly the keys of a record line")
        if not isinstance(header := fields["header"], dict) or not _is_plain(header) or header.get("v") != 1:
            raise ValueError("the header is not of version 1: an object of strings, integers and objects")
        self.session_id = _text(header, "session_id", _ID)
        self.casefile_id = _text(header, "casefile_id", _ID)
        self.seq = _number(header, "seq")
        self.event_id = _text(header, "event_id", _ID)
        self.kind = _text(header, "kind", _ID)
        self.started_seq = _number(header, "started_seq") if "started_seq" in header else None
        self.inputs_commit = _text(header, "inputs_commit", _DIGEST) if "inputs_commit" in header else None
        self.hash = _text(fields, "hash", _DIGEST)
        self.commit = _text(fields, "commit", _DIGEST)
        self.header = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        self.secret: bytes | None = None  # salt and payload
        if fields["salt"] is not None or fields["payload"] is not None:
            salt, payload = _text(fields, "salt", _SALT), _text(fields, "payload", _ANY)
            self.secret = bytes.fromhex(salt) + payload.encode()


def _unique(pairs: list[tuple[str, _Json]]) -> dict[str, _Json]:
    if len(fields := dict(pairs)) != len(pairs):
        raise ValueError("an object has the same key twice")
    return fields


def _int(text: str) -> int:
    if not _INT.fullmatch(text):
        raise ValueError("a number is not an integer of at most 15 digits")
    return int(text)


def _is_plain(value: _Json) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return type(value) in (str, int)  # not isinstance: a bool is an int, too


def _text(fields: Mapping[str, _Json], name: str, shape: re.Pattern[str]) -> str:
    if not isinstance(value := fields.get(name), str) or not shape.fullmatch(value):
        raise ValueError(f"{name} is missing or ill-formed")
    return value


def _number(fields: Mapping[str, _Json], name: str) -> int:
    if not isinstance(value := fields.get(name), int) or value < 1:
        raise ValueError(f"{name} is missing or ill-formed")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_int, parse_float=_int, parse_constant=_int)


@dataclass(slots=True)
class _Session:
    casefile_id: str
    hash: str
    seq: int = 0
    facts: int = 0
    erased: int = 0
    last_missing: int = 0
    open: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])


@dataclass(slots=True)
class _Check:
    heads: dict[str, tuple[int, str]]  # not met yet
    sessions: dict[str, _Session] = field(default_factory=dict[str, _Session])
    findings: list[Finding] = field(default_factory=list[Finding])
    found: Counter[FindingKind] = field(default_factory=Counter[FindingKind])

    def note(self, fact: _Fact | None, kind: FindingKind, message: str) -> None:
        self.found[kind] += 1
        if self.found[kind] <= _KEPT_PER_KIND:
            at = (fact.session_id, fact.seq) if fact else (None, None)
            self.findings.append(Finding(*at, kind, message))

    def take(self, fact: _Fact) -> None:
        genesis = sha256(f"casekeeper record 1\n{fact.casefile_id}\n{fact.session_id}".encode()).hexdigest()
        session = self.sessions.setdefault(fact.session_id, _Session(fact.casefile_id, genesis))
        session.facts += 1
        session.erased += fact.secret is None
        if fact.casefile_id != session.casefile_id:
            self.note(fact, "tampered", f"it names {fact.casefile_id}, its session {session.casefile_id}")
        if fact.secret is not None and sha256(b"\x00" + fact.secret).hexdigest() != fact.commit:
            self.note(fact, "tampered", "salt and payload are not the ones committed to")
        if fact.seq <= session.seq:
            self.note(fact, "tampered", f"it is repeated or out of order: it comes after fact {session.seq}")
            return
        linked = b"\x01" + bytes.fromhex(session.hash) + fact.header + bytes.fromhex(fact.commit)
        if fact.seq > session.seq + 1:
            # What this fact's hash builds on is missing, so the chain can only be followed from here on.
            self.note(fact, "gap", f"it comes right after fact {session.seq}")
            session.last_missing = fact.seq - 1
        elif sha256(linked).hexdigest() != fact.hash:
            self.note(fact, "tampered", "the hash does not follow from the fact and the one before it")
        session.seq, session.hash = fact.seq, fact.hash
        if self.heads.get(fact.session_id) == (fact.seq, fact.hash):
            del self.heads[fact.session_id]
        self.pair(session, fact)

    def pair(self, session: _Session, fact: _Fact) -> None:
        if fact.kind == "started":
            if fact.event_id in session.open:
                self.note(fact, "unpaired", "it starts an operation that is open already")
            session.open.setdefault(fact.event_id, (fact.seq, fact.commit))
        elif fact.kind in _ENDS:
            start = session.open.pop(fact.event_id, None)
            refused = fact.kind == "denied" and fact.started_seq is None  # a refusal needs no start
            in_gap = 0 < (fact.started_seq or 0) <= session.last_missing  # then the gap is the finding
            if start and start != (fact.started_seq, fact.inputs_commit):
                self.note(fact, "unpaired", f"it does not refer to its started fact, which is {start[0]}")
            elif not (start or refused or in_gap):
                self.note(fact, "unpaired", "it ends an operation that never started or has ended already")


def verify(lines: Iterable[str | bytes], heads: Mapping[str, tuple[int, str]] | None = None) -> Report:
    """What a record shows about itself, and against heads that were kept elsewhere.

    Never raises over what the lines hold. Memory grows with sessions, open operations and the longest line.

    Args:
        lines: Record lines; the facts of a session in the order of their numbers, sessions in any mixture.
        heads: By session id, the number and hash (hex) of a fact that the record must contain.
    """
    check = _Check(dict(heads or {}))
    for number, line in enumerate(lines, start=1):
        try:
            check.take(_Fact(line))
        except (ValueError, RecursionError) as error:
            check.note(None, "malformed", f"line {number}: {error}")
    for session_id, (seq, _) in check.heads.items():
        check.findings.append(Finding(session_id, seq, "diverges", "the head that was kept is not here"))
    sessions = (
        SessionSummary(name, s.casefile_id, s.facts, s.seq, s.hash, s.erased, len(s.open))
        for name, s in check.sessions.items()
    )
    return Report(tuple(sessions), tuple(check.findings))


def _head(text: str) -> tuple[str, tuple[int, str]]:
    session_id, seq, digest = text.split(":")
    # A shortened hash is no head; taken for one, it would look like a record that was rewritten.
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise ValueError
    return session_id, (int(seq), digest.lower())


def main(argv: Sequence[str] | None = None) -> int:
    """Check files, or stdin, as one record; print sessions, findings and a verdict; return the exit code."""
    parser = argparse.ArgumentParser(description="Check the lines of a casekeeper record.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="record lines; - reads standard input")
    head_help = "a fact that the record must contain, as an earlier run printed it: ID:SEQ:HASH"
    parser.add_argument("--head", action="append", default=[], type=_head, help=head_help)
    asked = parser.parse_args(argv)
    if len(dict(asked.head)) != len(asked.head):
        parser.error("argument --head: at most one for a session")
    try:
        with fileinput.input(asked.files, mode="rb") as lines:
            report = verify(lines, dict(asked.head))
    except OSError as error:
        print(f"cannot read the record: {error}", file=sys.stderr)
        return 2
    for s in report.sessions:
        counts = f"facts {s.facts}, erased {s.erased}, open {s.open}"
        print(f"session of {s.casefile_id}: {counts}, head {s.session_id}:{s.head_seq}:{s.head_hash}")
    for finding in report.findings:
        where = f"{finding.session_id} fact {finding.seq}: " if finding.session_id else ""
        print(f"{finding.kind}: {where}{finding.message}")
    verdict = {0: "intact", 30: "intact, with payloads erased"}.get(report.exit_code, "NOT intact")
    print(
        f"{verdict}: sessions {len(report.sessions)}, findings {len(report.findings)}, code {report.exit_code}"
    )
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
