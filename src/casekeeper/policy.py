"""WHAT as a table: what becomes of a call, by role × effects × approved × tainted × classification.

Three rules make the table, in this order, and nothing else decides:

1. the role must cover the operation's effects (`acl.py`);
2. the operators' rules, which can only take away: the first `deny` that fits wins over every `approval` that fits;
3. what a tainted call would send out or destroy needs an approval, where the deployment asks for it.

Everything that could ask is known when the server starts (the operations, the rules, the tags that they name), so the
table is made then; a call costs one look-up. It is default-deny: what no rule lets in stays out.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import product
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from casekeeper.acl import Effect, Role, role_for_effects
from casekeeper.strict import Strict
from casekeeper.values import value

RULES_MAX = 100
TAGS_MAX = 8
"""Tags that all rules may name together: the table has a row for every set of them."""

_GLOB = "*?["
_LEAVES = frozenset({Effect.EXTERNAL, Effect.DESTRUCTIVE})

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/@*?\[\]!-]{1,128}$")]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(str.casefold)]


class PolicyMisfit(ValueError):
    """A rule cannot be what its author meant; the message names the rule and the field."""


class PolicyRule(Strict, frozen=True):
    """One rule of the operators. It fits a call that fits every condition it names; a list fits by any of its items.

    `tools` and `agents` are names or globs; a rule that names neither is about all operations. `tainted`: true fits
    only calls that may follow what somebody else has written (docs/policies.md, Taint), false only all others.
    """

    name: Name
    then: Literal["deny", "approval"]
    tools: Annotated[list[Pattern], Field(min_length=1)] | None = None
    agents: Annotated[list[Pattern], Field(min_length=1)] | None = None
    roles: Annotated[list[Role], Field(min_length=1)] | None = None
    tags: Annotated[list[Tag], Field(min_length=1)] | None = None
    effects: Annotated[list[Effect], Field(min_length=1)] | None = None
    tainted: bool | None = None
    reason: Annotated[str, StringConstraints(max_length=500)] = ""

    @property
    def sentence(self) -> str:
        """What a member whom it stops is told."""
        does = "refuses this" if self.then == "deny" else "asks for an approval"
        return f"The rule {self.name} {does}" + (f": {self.reason}" if self.reason else ".")

    def is_about(self, operation: "Ruled") -> bool:
        """Whether the operation itself fits."""
        if self.tools is not None or self.agents is not None:
            named = {"tool": self.tools, "agent": self.agents}.get(operation.type) or ()
            if not any(fnmatchcase(operation.name, pattern) for pattern in named):
                return False
        return self.effects is None or not operation.effects.isdisjoint(self.effects)

    def fits(self, role: Role, tags: frozenset[str], *, tainted: bool) -> bool:
        """Whether the call of an operation that it is about fits."""
        return (
            (self.roles is None or role in self.roles)
            and (self.tags is None or not tags.isdisjoint(self.tags))
            and self.tainted in (None, tainted)
        )


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
        reason: Why not, in words for the caller; empty for a call that is let in.
    """

    ruling: Ruling
    needed: Role | None = None
    rule: str | None = None
    reason: str = ""


class Ruled(Protocol):
    """What the table must know of an operation."""

    @property
    def type(self) -> str:
        """`tool` or `agent`."""
        ...

    @property
    def name(self) -> str:
        """What calls name it by."""
        ...

    @property
    def effects(self) -> frozenset[Effect]:
        """What it does to the world."""
        ...


_ROLES: Sequence[Role | None] = (None, *Role)
_ROW = len(_ROLES) * 4
_PLACE = {role: index * 4 for index, role in enumerate(_ROLES)}

_Verdict = tuple[Ruling, PolicyRule | None]


class Policy:
    """The rules, and the table that they make for the operations of this server."""

    def __init__(self, rules: Iterable[PolicyRule] = (), *, tainted_needs_approval: bool = True) -> None:
        self.rules = tuple(rules)
        self._tainted_needs_approval = tainted_needs_approval
        named = sorted({tag for rule in self.rules for tag in rule.tags or ()})
        self._bits = {tag: 1 << index for index, tag in enumerate(named)}
        self._cells: dict[tuple[str, str], Sequence[Decision]] = {}

    @property
    def is_by_tags(self) -> bool:
        """Whether a casefile's tags can make a difference; if not, nobody needs to read them."""
        return bool(self._bits)

    def load(self, operations: Iterable[Ruled]) -> None:
        """Make the table for these operations.

        Raises:
            PolicyMisfit: A rule names, letter by letter, an operation that there is not: most likely a typing error,
                and what it should have stopped would go through.
        """
        for operation in operations:
            self._cells[operation.type, operation.name] = self._table(operation)
        for rule in self.rules:
            for field, type_ in (("tools", "tool"), ("agents", "agent")):
                for name in getattr(rule, field) or ():
                    if not any(sign in name for sign in _GLOB) and (type_, name) not in self._cells:
                        raise PolicyMisfit(f"rule {rule.name}, {field}: there is no {type_} {name!r}")

    def decide(
        self,
        operation: Ruled,
        role: Role | None,
        tags: Iterable[str] = (),
        *,
        tainted: bool = False,
        approved: bool = False,
    ) -> Decision:
        """What becomes of this call: one look-up. `role` None is a public reader, who runs nothing."""
        # What was not there at the start is judged by the same rules, only not as quickly.
        cells = self._cells.get((operation.type, operation.name)) or self._table(operation)
        row = _ROW * self._class(tags) if len(cells) > _ROW else 0
        return cells[row + _PLACE[role] + 2 * approved + tainted]

    def _class(self, tags: Iterable[str]) -> int:
        found = 0
        for tag in tags:
            found |= self._bits.get(tag.casefold(), 0)
        return found

    def _table(self, operation: Ruled) -> Sequence[Decision]:
        rules = [rule for rule in self.rules if rule.is_about(operation)]
        classes = 1 << len(self._bits) if any(rule.tags for rule in rules) else 1
        known: dict[Decision, Decision] = {}
        cells: list[Decision] = []
        for number in range(classes):
            tags = frozenset(tag for tag, bit in self._bits.items() if bit & number)
            columns = [
                self._column(operation, rules, tags, approved=approved, tainted=tainted)
                for approved, tainted in product((False, True), repeat=2)
            ]
            cells += [
                known.setdefault(cell, cell)
                for cells_of_role in zip(*columns, strict=True)
                for cell in cells_of_role
            ]
        return tuple(cells)

    def _column(
        self,
        operation: Ruled,
        rules: Sequence[PolicyRule],
        tags: frozenset[str],
        *,
        approved: bool,
        tainted: bool,
    ) -> list[Decision]:
        """The decisions for every role, a public reader's first."""
        verdicts = {
            role: self._verdict(operation, rules, role, tags, approved=approved, tainted=tainted)
            for role in Role
        }
        would = (Ruling.ALLOW, Ruling.APPROVAL)
        needed = next((role for role, (ruling, _) in verdicts.items() if ruling in would), None)
        # Whoever is no member is not told what rules there are.
        says = f"{operation.name} needs the role {needed}." if needed else "Only members run operations."
        cells = [Decision(Ruling.ROLE, needed, None, says)]
        for ruling, rule in verdicts.values():
            if ruling is Ruling.ROLE and needed is None:
                # No role would help; what the highest one would meet is what there is to say.
                ruling, rule = verdicts[Role.OWNER]
            reason = _reason(operation, ruling, rule, needed)
            cells.append(Decision(ruling, needed, rule.name if rule else None, reason))
        return cells

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


def _reason(operation: Ruled, ruling: Ruling, rule: PolicyRule | None, needed: Role | None) -> str:
    match ruling:
        case Ruling.ALLOW:
            return ""
        case Ruling.ROLE:
            return f"{operation.name} needs the role {needed}."
        case Ruling.DENY | Ruling.APPROVAL if rule is not None:
            return rule.sentence
        case _:
            return f"{operation.name} may follow what somebody else has written: it needs an approval."


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
    named = {tag for rule in rules.values() for tag in rule.tags or ()}
    if len(named) > TAGS_MAX:
        raise ValueError(f"rules may name {TAGS_MAX} tags together, these name {len(named)}")
    return list(rules.values())


def _read_rule(item: Any, number: int) -> PolicyRule:
    called = item.get("name", number) if isinstance(item, dict) else number  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    try:
        rule = PolicyRule.model_validate(item)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'rule'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"rule {called}, {faults}") from error
    conditions = rule.model_dump(exclude={"name", "then", "reason"}, exclude_none=True)
    if not conditions:
        raise ValueError(f"rule {called}: it names no condition, so it would stop everything")
    return rule
