"""WHAT as a table: whether a call is admitted, by role × effects × approved × tainted × classification.

Three rules make the table, in this order, and nothing else decides:

1. the role must cover the operation's effects (`acl.py`);
2. the operators' rules, which can only take away: the first `deny` that fits wins over every `approval` that fits;
3. what a tainted call would send out or destroy needs an approval, where the deployment asks for it.

A cell of the table is made when it is first asked for, and kept. Operations that the same rules are about, with the same
effects, share their cells, so an operation that is added later, or that one casefile alone has, costs a look-up as any other.
The table is default-deny: what no rule lets in stays out.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from enum import StrEnum
from fnmatch import translate
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    create_model,
)

from casekeeper.acl import Effect, Role, role_for_effects
from casekeeper.errors import SettingsInvalid
from casekeeper.kinds import KINDS
from casekeeper.strict import Strict
from casekeeper.values import value

RULES_MAX = 100
# Cells of the table and operations that it knows; past that it is made anew. A few MiB.
_KEPT_MAX = 20_000

_GLOB = "*?["
_LEAVES = frozenset({Effect.EXTERNAL, Effect.DESTRUCTIVE})

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/@*?\[\]!-]{1,128}$")]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(str.casefold)]


class PolicyRule(Strict):
    """One rule of the operators. It fits a call that fits every condition it names; a list fits by any of its items.

    Each kind of operation has a field of its own (`tools`, `agents`) for names or globs; a rule that has none of them is
    about all operations. `tainted`: true fits only calls that may follow what somebody else has written (docs/policies.md, Taint), false only all others.
    """

    model_config = ConfigDict(frozen=True)

    name: Name
    then: Literal["deny", "approval"]
    roles: Annotated[list[Role], Field(min_length=1)] | None = None
    tags: Annotated[list[Tag], Field(min_length=1)] | None = None
    effects: Annotated[list[Effect], Field(min_length=1)] | None = None
    tainted: bool | None = None
    reason: Annotated[str, StringConstraints(max_length=500)] = ""

    @property
    def named(self) -> Mapping[str, Sequence[str]]:
        """The names and globs, by the kind of operation; empty where the rule is about all."""
        given = ((kind.name, getattr(self, kind.plural, None)) for kind in KINDS.values())
        return {name: patterns for name, patterns in given if patterns is not None}

    @cached_property
    def _names(self) -> Mapping[str, re.Pattern[str]]:
        """What the names of operations are matched with, by their kind."""
        return {
            kind: re.compile("|".join(f"(?:{translate(pattern)})" for pattern in patterns))
            for kind, patterns in self.named.items()
        }

    @property
    def sentence(self) -> str:
        """What a member whom it stops is told."""
        does = "refuses this" if self.then == "deny" else "asks for an approval"
        return f"The rule {self.name} {does}" + (f": {self.reason}" if self.reason else ".")

    def is_about(self, operation: "Ruled") -> bool:
        """Whether the operation itself fits."""
        if self._names:
            names = self._names.get(operation.type)
            if names is None or names.match(operation.name) is None:
                return False
        return self.effects is None or not operation.effects.isdisjoint(self.effects)

    def fits(self, role: Role, tags: frozenset[str], *, tainted: bool) -> bool:
        """Whether the call of an operation that it is about fits."""
        return (
            (self.roles is None or role in self.roles)
            and (self.tags is None or not tags.isdisjoint(self.tags))
            and self.tainted in (None, tainted)
        )


_NAMES: Any = (Annotated[list[Pattern] | None, Field(min_length=1)], None)
_Rule = create_model("PolicyRule", __base__=PolicyRule, **{kind.plural: _NAMES for kind in KINDS.values()})


class Ruling(StrEnum):
    """What becomes of a call."""

    ALLOW = "allow"
    ROLE = "role"
    DENY = "deny"
    APPROVAL = "approval"


@value
class Decision:
    """One cell of the table.

    Attributes:
        needed: The smallest role that would be let in, if need be with an approval; None if no role would.
        rule: The operators' rule that decided, if one did.
        sentence: What that rule tells members; for who is no member, that none but members run operations.
    """

    ruling: Ruling
    needed: Role | None = None
    rule: str | None = None
    sentence: str = ""

    def reason(self, name: str) -> str:
        """Why an operation of this name is not let in, in words for the caller; empty for one that is."""
        match self.ruling:
            case Ruling.ALLOW:
                return ""
            case Ruling.ROLE if self.needed is not None:
                return f"{name} needs the role {self.needed}."
            case _ if self.sentence:
                return self.sentence
            case _:
                return f"{name} may follow what somebody else has written: it needs an approval."


class Ruled(Protocol):
    """What the table must know of an operation."""

    @property
    def type(self) -> str:
        """The kind of operation."""
        ...

    @property
    def name(self) -> str:
        """What calls name it by."""
        ...

    @property
    def effects(self) -> frozenset[Effect]:
        """What it does to the world."""
        ...


_Verdict = tuple[Ruling, PolicyRule | None]
_Column = Mapping[Role | None, Decision]
# By the tags that rules name, as bits; tainted; approved.
_Columns = dict[tuple[int, bool, bool], _Column]


class Policy:
    """The rules, and the table that they make."""

    def __init__(self, rules: Iterable[PolicyRule] = (), *, tainted_needs_approval: bool = True) -> None:
        self.rules = tuple(rules)
        self._tainted_needs_approval = tainted_needs_approval
        named = sorted({tag for rule in self.rules for tag in rule.tags or ()})
        self._bits = {tag: 1 << index for index, tag in enumerate(named)}
        self._known: dict[tuple[str, str, frozenset[Effect]], _Columns] = {}
        self._shared: dict[tuple[tuple[str, ...], frozenset[Effect]], _Columns] = {}
        self._kept = 0

    @property
    def is_by_tags(self) -> bool:
        """Whether a casefile's tags can make a difference; if not, nobody needs to read them."""
        return bool(self._bits)

    def check(self, names: Mapping[str, Container[str] | None]) -> None:
        """Check the rules against the operations that there are, by type; None where more may be added later.

        Raises:
            SettingsInvalid: A rule names, letter by letter, an operation that there is not: most likely a typing error,
                and what it should have stopped would go through.
        """
        for rule in self.rules:
            for type_, patterns in rule.named.items():
                known = names.get(type_, ())
                for name in patterns:
                    if known is not None and not any(sign in name for sign in _GLOB) and name not in known:
                        field = KINDS[type_].plural
                        raise SettingsInvalid(
                            f"CASEKEEPER_POLICIES: rule {rule.name}, {field}: there is no {type_} {name!r}."
                        )

    def decide(
        self,
        operation: Ruled,
        role: Role | None,
        tags: Iterable[str] = (),
        *,
        tainted: bool = False,
        approved: bool = False,
    ) -> Decision:
        """What becomes of this call. `role` None is a public reader, who runs nothing."""
        columns = self._known.get((operation.type, operation.name, operation.effects))
        if columns is None:
            columns = self._meet(operation)
        cell = (self._class(tags), tainted, approved)
        column = columns.get(cell)
        if column is None:
            column = columns[cell] = self._column(operation, *cell)
        return column[role]

    def _class(self, tags: Iterable[str]) -> int:
        found = 0
        if self._bits:
            for tag in tags:
                found |= self._bits.get(tag.casefold(), 0)
        return found

    def _meet(self, operation: Ruled) -> _Columns:
        """The columns of an operation that was not asked about yet."""
        self._keep()
        about = tuple(rule.name for rule in self._about(operation))
        columns = self._shared.setdefault((about, operation.effects), {})
        self._known[operation.type, operation.name, operation.effects] = columns
        return columns

    def _about(self, operation: Ruled) -> Sequence[PolicyRule]:
        return [rule for rule in self.rules if rule.is_about(operation)]

    def _keep(self) -> None:
        self._kept += 1
        if self._kept > _KEPT_MAX:
            self._known.clear()
            self._shared.clear()
            self._kept = 0

    def _column(self, operation: Ruled, bits: int, tainted: bool, approved: bool) -> _Column:
        """The decisions for every role, and for a public reader."""
        self._keep()
        tags = frozenset(tag for tag, bit in self._bits.items() if bit & bits)
        rules = self._about(operation)
        verdicts = {
            role: self._verdict(operation, rules, role, tags, approved=approved, tainted=tainted)
            for role in Role
        }
        would = (Ruling.ALLOW, Ruling.APPROVAL)
        needed = next((role for role, (ruling, _) in verdicts.items() if ruling in would), None)
        # Whoever is no member is not told what rules there are.
        column: dict[Role | None, Decision] = {
            None: Decision(Ruling.ROLE, needed, None, "Only members run operations.")
        }
        for role, (ruling, rule) in verdicts.items():
            if ruling is Ruling.ROLE and needed is None:
                # No role would help; what the highest one would meet is what there is to say.
                ruling, rule = verdicts[Role.OWNER]
            column[role] = Decision(ruling, needed, rule and rule.name, rule.sentence if rule else "")
        return column

    def _verdict(
        self,
        operation: Ruled,
        rules: Sequence[PolicyRule],
        role: Role,
        tags: frozenset[str],
        *,
        approved: bool,
        tainted: bool,
    ) -> _Verdict:
        if not role.covers(role_for_effects(operation.effects)):
            return Ruling.ROLE, None
        fitting = [rule for rule in rules if rule.fits(role, tags, tainted=tainted)]
        for rule in fitting:
            if rule.then == "deny":
                return Ruling.DENY, rule
        if approved:
            return Ruling.ALLOW, None
        if fitting:
            return Ruling.APPROVAL, fitting[0]
        if tainted and self._tainted_needs_approval and not operation.effects.isdisjoint(_LEAVES):
            return Ruling.APPROVAL, None
        return Ruling.ALLOW, None


def read_rules(given: Any) -> list[PolicyRule]:
    """The rules in a setting.

    Raises:
        ValueError: A rule does not fit; the message names it and the field.
    """
    if not isinstance(given, list):
        raise ValueError("must be a list of rules")
    items: list[Any] = given  # pyright: ignore[reportUnknownVariableType] - whatever the file holds
    if len(items) > RULES_MAX:
        raise ValueError(f"there may be {RULES_MAX} rules at most")
    rules: dict[str, PolicyRule] = {}
    for number, item in enumerate(items, start=1):
        rule = _read_rule(item, number)
        if rule.name in rules:
            raise ValueError(f"rule {rule.name}, name: another rule has it")
        rules[rule.name] = rule
    return list(rules.values())


def _read_rule(item: Any, number: int) -> PolicyRule:
    called = item.get("name", number) if isinstance(item, dict) else number  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    try:
        rule = _Rule.model_validate(item)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'rule'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"rule {called}, {faults}") from error
    conditions = rule.model_dump(exclude={"name", "then", "reason"}, exclude_none=True)
    if not conditions:
        raise ValueError(f"rule {called}: it names no condition, so it would stop everything")
    return rule
