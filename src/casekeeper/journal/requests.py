"""Idempotency: a `request_id` is claimed in the commit that does the work, and never runs twice.

What is kept is the id of what the call made, so a replay answers the present state; answers, tokens and secrets
are never stored. Key = hash(user, route, request id), at the top level of the store: the session may not exist yet.
A fingerprint distinguishes a repeat from another request with the same id; it carries the version of its rule
(docs/decisions/0021-fingerprints-carry-a-version.md).
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from casekeeper.clock import Clock
from casekeeper.errors import RequestIdReused
from casekeeper.journal.commits import About, Condition, Record, Superseded
from casekeeper.values import value

T = TypeVar("T")

KEPT = timedelta(hours=24)
"""How long a claim outlives the end of the operation."""


class AlreadyClaimed(Superseded):
    """The same request came first."""


class NotFingerprinted:
    """Marks the field of a command whose value no fingerprint may depend on: a quick hash of it could be guessed."""


class Body:
    """What a request asks for, in the forms in which fingerprints see it; each is made only where it is needed.

    Args:
        sent: What was sent, as a JSON value: validated, without what was left to its default.
        former: The bytes of which version 1 took the digest.
    """

    __slots__ = ("_former", "_sent")

    def __init__(self, sent: Callable[[], Any], former: Callable[[], bytes]) -> None:
        self._sent = sent
        self._former = former

    @classmethod
    def of_command(cls, command: BaseModel) -> "Body":
        """The body that is a command."""
        return cls(
            lambda: command.model_dump(mode="json", exclude_unset=True, exclude=_secrets(type(command))),
            lambda: command.model_dump_json().encode(),
        )

    @classmethod
    def of_json(cls, raw: bytes) -> "Body":
        """The body that is JSON already."""
        return cls(lambda: json.loads(raw), lambda: raw)

    def digest(self) -> str:
        """By the present rule: SHA-256 of canonical JSON."""
        return hashlib.sha256(_canonical(self._sent()).encode()).hexdigest()

    def former_digest(self) -> str:
        """By the rule of version 1."""
        return hashlib.sha256(self._former()).hexdigest()


# Quicker encoders have changed how they write numbers, which would make another request of a repeat.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_NOTHING = Body.of_json(b"null")
_VERSION = "2"


@value
class Ask:
    """A request as idempotency sees it. One whose id the server made cannot be repeated, so nothing is claimed.

    `route`: part of the stored key, whatever the path and the door by which the request came.
    `within`: the operation that asks, and the key by which it names this call. Such a claim is kept as long as the record,
    since the operation may go on at any time.
    """

    user_id: str
    route: str
    request_id: str
    body: Body = _NOTHING
    is_repeatable: bool = False
    within: tuple[str, str] | None = None

    @property
    def key(self) -> str:
        """Under which the claim is stored."""
        if self.within is not None:
            return hashlib.sha256("\n".join(("within", *self.within)).encode()).hexdigest()
        return hashlib.sha256("\n".join((self.user_id, self.route, self.request_id)).encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """What is stored to distinguish a repeat from another request: the rule's version and a digest."""
        return f"{_VERSION}:{self.body.digest()}"

    def has(self, fingerprint: str) -> bool:
        """Whether it asks for the same as the request with this stored fingerprint."""
        version, _, digest = fingerprint.rpartition(":")
        match version:
            case "":
                return digest == self.body.former_digest()
            case "2":
                return digest == self.body.digest()
            case _:
                # A newer server's rule is unknown here; the id alone says that it is a repeat.
                return True


@value
class Claim(Record, Condition):
    """The claim itself: refused where one exists that has not expired, written otherwise."""

    key: str
    fingerprint: str
    made: str
    now: datetime
    expires_at: datetime | None

    @property
    def about(self) -> Sequence[About]:
        return (About("claim", self.key, alone=True),)

    def refusal(self, found: Any) -> Exception | None:
        return AlreadyClaimed(self.key) if found else None


@value
class ReleaseClaim(Record):
    """Starts the 24 hours of an operation's claim; goes with its terminal fact."""

    made: str
    expires_at: datetime

    @property
    def about(self) -> Sequence[About]:
        # A live claim is written by nobody but the end of its operation, whose fact has the session alone.
        return ()


class ClaimStore(Protocol):
    """Claims as a store keeps them."""

    async def claimed(self, key: str, now: datetime) -> tuple[str, str] | None:
        """Fingerprint and made id of a live claim."""
        ...


class Requests:
    """Runs a call once per request id and answers its repeats from what it made."""

    def __init__(self, claims: ClaimStore, clock: Clock) -> None:
        self._claims = claims
        self._clock = clock

    async def find(self, ask: Ask) -> str | None:
        """The id that an earlier same request made.

        Raises:
            RequestIdReused: The earlier request asked for something else.
        """
        if not ask.is_repeatable:
            return None
        found = await self._claims.claimed(ask.key, self._clock())
        if found is None:
            return None
        fingerprint, made = found
        if not ask.has(fingerprint):
            raise RequestIdReused
        return made

    def claim(self, ask: Ask, made: str, *, is_operation: bool = False) -> tuple[Claim, ...]:
        """What to add to the commit's conditions and records; an operation's claim lasts until it ends, and on."""
        if not ask.is_repeatable:
            return ()
        now = self._clock()
        return (Claim(ask.key, ask.fingerprint, made, now, None if is_operation else now + KEPT),)

    async def once(
        self, ask: Ask, make: Callable[[], Awaitable[T]], again: Callable[[str], Awaitable[T]]
    ) -> tuple[T, bool]:
        """`make()` the first time, `again(id)` for a repeat; the flag says that it was a repeat.

        `make` must put `claim(ask, …)` into its commit; losing that race turns into a repeat.
        """
        if made := await self.find(ask):
            return await again(made), True
        try:
            return await make(), False
        except AlreadyClaimed:
            made = await self.find(ask)
            if made is None:
                raise
            return await again(made), True


@cache
def _secrets(command: type[BaseModel]) -> set[str]:
    return {
        name
        for name, field in command.model_fields.items()
        if any(isinstance(mark, NotFingerprinted) for mark in field.metadata)
    }
