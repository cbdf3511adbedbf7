"""The shelf: small JSON things of any kind, each about a casefile or an account, with a state, a version, a due time.

A kind is a word and what its room keeps in the body (an approval, a webhook, a schedule …): no store learns of it. A room
writes its things by `Put` and `Drop`, in one commit with the facts that record them, and reads them by `Things`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, field, replace
from datetime import datetime
from typing import Any, Literal, Protocol

from pydantic_core import from_json

from casekeeper.clock import to_us
from casekeeper.errors import ArgumentsInvalid, FieldError, ThingTooLarge
from casekeeper.journal.commits import About, Condition, Record, Superseded
from casekeeper.values import value

BODY_MAX = 64 * 1024
"""How many bytes a body may take as JSON in UTF-8. What is larger belongs in a blob, which the thing names."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
# Visible ASCII without the slash, which separates the parts of a place in Firestore.
_ID = re.compile(r"[!-.0-~]{1,254}")


class ThingChanged(Superseded):
    """A thing is not at the version that the commit was prepared for, or not there, or there already.

    `version` is the one that it has, 0 where there is none.
    """

    def __init__(self, kind: str, id: str, version: int) -> None:  # noqa: A002 - as the thing has it
        self.kind, self.id, self.version = kind, id, version
        super().__init__(f"{kind} {id} is at version {version}")


@value
class Topic:
    """What a thing is about: a casefile, with whose contents it is erased, or an account."""

    kind: Literal["casefile", "account"]
    id: str

    @property
    def key(self) -> str:
        """As stores keep it."""
        return f"{self.kind}:{self.id}"

    @property
    def casefile_id(self) -> str | None:
        """The casefile; None for an account."""
        return self.id if self.kind == "casefile" else None


@value
class Thing:
    """A small thing. `kind` and `id` name it; they and what it is about never change.

    `kind` and `state` are short words (`[a-z][a-z0-9_]*`, 32 characters; a state may be empty), `id` is visible ASCII
    without a slash (254 characters), `version` counts from 1, instants are aware, and the body is a JSON object of
    `BODY_MAX` bytes and some 200 levels at most. `Put` refuses all else.
    """

    _: KW_ONLY
    kind: str
    id: str
    about: Topic
    state: str = ""
    version: int = 1
    due_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    body: dict[str, Any]

    @property
    def name(self) -> tuple[str, str]:
        """Its kind and id."""
        return self.kind, self.id

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands in its pages: (created_us, id)."""
        return to_us(self.created_at), self.id

    def changed(self, now: datetime, **fields: Any) -> "Thing":
        """Its next version."""
        return replace(self, version=self.version + 1, updated_at=now, **fields)


@value
class IsAt(Condition):
    """The thing is at this version and about this topic; version 0: there is no such thing."""

    kind: str
    id: str
    version: int
    topic: Topic

    def __post_init__(self) -> None:
        _check_name(self.kind, self.id, self.topic)

    @classmethod
    def as_read(cls, thing: Thing) -> "IsAt":
        """Nobody has changed the thing since it was read; goes with its `Drop`, or with what relies on it."""
        return cls(thing.kind, thing.id, thing.version, thing.about)

    @classmethod
    def before(cls, thing: Thing) -> "IsAt":
        """What goes with a `Put` of this version: the one before it is there, or nothing if it is the first."""
        return cls(thing.kind, thing.id, thing.version - 1, thing.about)

    @property
    def name(self) -> tuple[str, str]:
        """The thing's kind and id."""
        return self.kind, self.id

    @property
    def about(self) -> Sequence[About]:
        return _about(self.name, self.topic)

    def refusal(self, found: Any) -> Exception | None:
        """`found` is the thing's version and the key of its topic, None if it is not there."""
        version, key = found or (0, self.topic.key)
        if (version, key) == (self.version, self.topic.key):
            return None
        return ThingChanged(self.kind, self.id, version)


@value
class Put(Record):
    """The thing as it is from now on, made or replaced. A commit names a thing once, by `Put` or by `Drop`.

    Without `IsAt` the last writer wins. What makes a thing about a casefile states that the casefile is active as well
    (`CasefileIsActive`): what is put after the casefile's contents were erased is never erased.

    Raises:
        ArgumentsInvalid: The thing is not as things have to be; `errors` names the field.
        ThingTooLarge: Its body takes more than `BODY_MAX` bytes.
    """

    thing: Thing
    body: bytes = field(init=False, repr=False)
    """The thing's body as JSON."""

    def __post_init__(self) -> None:
        thing = self.thing
        _check_name(thing.kind, thing.id, thing.about)
        _check("state", not thing.state or _NAME.fullmatch(thing.state), "is no short word")
        _check("version", thing.version >= 1, "counts from 1")
        for name in ("due_at", "created_at", "updated_at"):
            instant: datetime | None = getattr(thing, name)
            _check(name, instant is None or instant.utcoffset() is not None, "has no time zone")
        # Values are frozen for the type checker only.
        object.__setattr__(self, "body", _json(thing))

    @property
    def name(self) -> tuple[str, str]:
        """The thing's kind and id."""
        return self.thing.name

    @property
    def about(self) -> Sequence[About]:
        return _about(self.name, self.thing.about)


@value
class Drop(Record):
    """The thing is not there from now on. Goes with `IsAt`; without it, whatever is there goes."""

    kind: str
    id: str
    topic: Topic

    def __post_init__(self) -> None:
        _check_name(self.kind, self.id, self.topic)

    @classmethod
    def it(cls, thing: Thing) -> "Drop":
        """Drops this one."""
        return cls(thing.kind, thing.id, thing.about)

    @property
    def name(self) -> tuple[str, str]:
        """The thing's kind and id."""
        return self.kind, self.id

    @property
    def about(self) -> Sequence[About]:
        return _about(self.name, self.topic)


class Things(Protocol):
    """Reads things. Those of a deleted casefile are there until its contents are erased."""

    async def get(self, kind: str, id: str) -> Thing | None:  # noqa: A002 - as the thing has it
        """The thing as it is now; None also for a kind or an id that no thing can have."""
        ...

    async def page(
        self, kind: str, about: Topic, state: str | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[Thing]:
        """Things of a kind about a topic, in this state or in any: newest first, then by id, behind this `Thing.place`.

        Costs what the page holds, however many other things there are.
        """
        ...

    async def due(self, kind: str | None, now: datetime, limit: int) -> Sequence[Thing]:
        """Things of a kind, or of all, whose `due_at` has come, the longest due first.

        They stay due until their next version says otherwise: who can do nothing about one moves its `due_at`.
        """
        ...


def may_exist(kind: str, id: str, state: str = "") -> bool:  # noqa: A002 - as the thing has it
    """Whether a thing can have these; ids come from callers, and not every store can even be asked for any text."""
    return bool(_NAME.fullmatch(kind) and _ID.fullmatch(id) and (not state or _NAME.fullmatch(state)))


def body_of(stored: bytes) -> dict[str, Any]:
    """A stored body."""
    return from_json(stored)


def topic_of(key: str) -> Topic:
    """The topic of a stored key."""
    kind, _, id_ = key.partition(":")
    return Topic("casefile" if kind == "casefile" else "account", id_)


def _check(name: str, holds: object, message: str) -> None:
    if not holds:
        raise ArgumentsInvalid(errors=(FieldError(name, message),))


def _check_name(kind: str, id_: str, topic: Topic) -> None:
    _check("kind", _NAME.fullmatch(kind), "is no short word")
    _check("id", _ID.fullmatch(id_), "is no id")
    _check("about", _ID.fullmatch(topic.id), "is no id")


def _json(thing: Thing) -> bytes:
    # Types are a promise of the caller's that foreign JSON may have broken.
    body: Any = thing.body
    _check("body", isinstance(body, dict), "is no JSON object")
    try:
        encoded = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        if len(encoded) > BODY_MAX:
            raise ThingTooLarge(f"{thing.kind}: {len(encoded)} bytes as JSON, at most {BODY_MAX}.")
        # What is written can be read: its nesting has a limit that does not depend on who reads.
        from_json(encoded)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentsInvalid(
            errors=(FieldError("body", f"is no JSON that can be kept: {error}"),)
        ) from error
    return encoded


def _about(name: tuple[str, str], topic: Topic) -> Sequence[About]:
    """A thing is changed alone by its name, under whichever topic, and beside others in its casefile."""
    thing = About("thing", " ".join(name), alone=True)
    return (About("casefile", topic.id, alone=False), thing) if topic.casefile_id else (thing,)
