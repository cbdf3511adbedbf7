"""Importing a chain that another store wrote, with the same numbers, hashes, salts and bytes.

A line is judged when it is read: it must follow from the one before it. What the store adopts must follow from what
the store has, which `ChainEndsAt` says.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from casekeeper.journal.chain import canonical, commitment, genesis, link
from casekeeper.journal.commits import About, Condition, Record, Superseded
from casekeeper.journal.events import Fact, Payload, fact_of
from casekeeper.values import value


class ChainBroken(ValueError):
    """The line does not follow from the one before it, or is none."""


@value
class Adopted:
    """A fact as it was sealed elsewhere. One whose payload was erased has neither body nor blob."""

    fact: Fact
    seq: int
    header: bytes
    hash: bytes

    @property
    def is_erased(self) -> bool:
        """Whether the payload is gone for good."""
        return self.fact.payload.body is None and self.fact.payload.blob is None


@value
class AdoptFacts(Record):
    """Facts of one session, in order, behind those that the store has."""

    casefile_id: str
    session_id: str
    facts: Sequence[Adopted]

    @property
    def about(self) -> Sequence[About]:
        return About("casefile", self.casefile_id, alone=True), About("session", self.session_id, alone=True)


class ChainHasGoneOn(Superseded):
    """The session's record does not end where it was said to."""


@value
class ChainEndsAt(Condition):
    """The session's newest fact is this one; seq 0: there is none. `found` is its number and hash."""

    casefile_id: str
    session_id: str
    seq: int
    hash: bytes

    @property
    def about(self) -> Sequence[About]:
        return About("casefile", self.casefile_id, alone=True), About("session", self.session_id, alone=True)

    def refusal(self, found: Any) -> Exception | None:
        return None if found == (self.seq, self.hash) else ChainHasGoneOn(self.session_id)


def adopted(line: Mapping[str, Any], seq: int, previous: bytes) -> Adopted:
    """The fact of a record line (`docs/record-format.md`), which must have this number and follow this hash.

    Raises:
        ChainBroken: It does not, or is no record line of a kind known here.
    """
    try:
        header, commit = line["header"], bytes.fromhex(line["commit"])
        raw, digest = canonical(header), bytes.fromhex(line["hash"])
        payload = _payload(line, commit)
        previous = previous or genesis(header["casefile_id"], header["session_id"])
        if header["seq"] != seq or link(previous, raw, commit) != digest:
            raise ChainBroken(f"fact {seq} does not follow from the one before it")
        return Adopted(fact_of(header, payload), seq, raw, digest)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ChainBroken):
            raise
        raise ChainBroken(f"fact {seq} cannot be read: {error!r}") from error


def _payload(line: Mapping[str, Any], commit: bytes) -> Payload:
    if line["salt"] is None:
        return Payload(b"", commit, 0, None)
    salt, body = bytes.fromhex(line["salt"]), line["payload"].encode()
    if commitment(salt, body) != commit:
        raise ChainBroken("salt and payload are not the ones committed to")
    return Payload(salt, commit, len(body), body)
