"""The policy's table against the rules of `docs/policies.md`, written out a second time here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product
from typing import Any

import pytest

from casekeeper.acl import Effect, Role
from casekeeper.errors import SettingsInvalid
from casekeeper.operations.policy import RULES_MAX, Policy, PolicyRule, Ruling, read_rules

ROLES = ("public", "viewer", "editor", "admin", "owner")


@dataclass(frozen=True)
class Named:
    """An operation as the table sees it."""

    name: str
    effects: frozenset[Effect]
    type: str = "tool"


@dataclass(frozen=True)
class Asked:
    """One point of the domain, in plain strings."""

    name: str
    effects: frozenset[str]
    role: str
    approved: bool
    tainted: bool
    tags: frozenset[str]


def subsets(items: Sequence[Any]) -> list[frozenset[Any]]:
    return [
        frozenset(some) for some in chain.from_iterable(combinations(items, n) for n in range(len(items) + 1))
    ]


def may_by_role(ask: Asked) -> bool:
    """A viewer runs `read`, an editor `write` and `external` as well; only admins destroy."""
    if ask.role == "public":
        return False
    if ask.role == "viewer":
        return ask.effects <= {"read"}
    if ask.role == "editor":
        return "destructive" not in ask.effects
    return True


def leaks(ask: Asked) -> bool:
    """An agent has read something, and now wants to send something out or destroy it."""
    return ask.tainted and ("external" in ask.effects or "destructive" in ask.effects)


# Each set of rules twice: as operators write it, and as somebody who reads it would act on it. The latter says
# for whom it denies, and for whom it asks for an approval.
Acts = Callable[[Asked], bool]


def never(ask: Asked) -> bool:
    return False


BOOKS: dict[str, tuple[list[dict[str, Any]], Acts, Acts, bool]] = {
    "no rules": ([], never, never, True),
    "no rules, agents send freely": ([], never, never, False),
    "nothing leaves what is secret": (
        [{"name": "secret", "then": "deny", "tags": ["Secret"], "effects": ["external"]}],
        lambda ask: "secret" in ask.tags and "external" in ask.effects,
        never,
        True,
    ),
    "who is not admin asks before writing": (
        [{"name": "four-eyes", "then": "approval", "roles": ["viewer", "editor"], "effects": ["write"]}],
        never,
        lambda ask: ask.role in ("viewer", "editor") and "write" in ask.effects,
        False,
    ),
    "one tool by name, some by pattern": (
        [
            {"name": "no-post", "then": "deny", "tools": ["post_letter"]},
            {"name": "ask-mail", "then": "approval", "tools": ["mail_*"], "tags": ["hr", "legal"]},
        ],
        lambda ask: ask.name == "post_letter",
        lambda ask: ask.name == "mail_send" and bool(ask.tags & {"hr", "legal"}),
        True,
    ),
    "a denial is stronger than an approval, whichever comes first": (
        [
            {"name": "ask", "then": "approval", "effects": ["read", "write", "external", "destructive"]},
            {"name": "untainted-only", "then": "deny", "tainted": True, "roles": ["admin"]},
        ],
        lambda ask: ask.tainted and ask.role == "admin",
        lambda ask: bool(ask.effects),
        True,
    ),
    "agents are no tools": (
        [{"name": "no-models", "then": "deny", "agents": ["*"]}],
        never,
        never,
        True,
    ),
}
NAMES = ("post_letter", "mail_send", "note_add")
TAGS = subsets(("secret", "hr", "legal", "unnamed"))


def by_the_book(ask: Asked, denies: Acts, asks: Acts, *, careful: bool) -> str:
    if not may_by_role(ask):
        return "role"
    if denies(ask):
        return "deny"
    if not ask.approved and (asks(ask) or (careful and leaks(ask))):
        return "approval"
    return "allow"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("book", BOOKS)
def test_the_table_is_what_the_book_says(book: str):
    rules, denies, asks, careful = BOOKS[book]
    tools = [Named(name, effects) for name in NAMES for effects in subsets(tuple(Effect))]

    wrong: list[Asked] = []
    for tool in tools:
        policy = Policy(read_rules(rules), tainted_needs_approval=careful)
        for role, approved, tainted, tags in product(ROLES, (False, True), (False, True), TAGS):
            effects = frozenset(effect.value for effect in tool.effects)

            def answer(
                role: str,
                name: str = tool.name,
                effects: frozenset[str] = effects,
                approved: bool = approved,
                tainted: bool = tainted,
                tags: frozenset[str] = tags,
            ) -> str:
                ask = Asked(name, effects, role, approved, tainted, tags)
                return by_the_book(ask, denies, asks, careful=careful)

            decision = policy.decide(
                tool, None if role == "public" else Role(role), tags, tainted=tainted, approved=approved
            )
            would = [r for r in ROLES[1:] if answer(r) in ("allow", "approval")]
            expected = answer(role)
            if expected == "role" and not would and role != "public":
                expected = "deny"
            if (decision.ruling, decision.needed) != (expected, would[0] if would else None):
                wrong.append(Asked(tool.name, effects, role, approved, tainted, tags))

    assert wrong == []


def test_every_refusal_says_why():
    policy = Policy(read_rules(BOOKS["one tool by name, some by pattern"][0]))
    tools = [Named(name, frozenset(Effect)) for name in NAMES]

    for tool, role, tainted, tags in product(tools, [None, *Role], (False, True), TAGS):
        decision = policy.decide(tool, role, tags, tainted=tainted)
        assert (decision.reason(tool.name) == "") == (decision.ruling is Ruling.ALLOW)
        if role is None:
            assert decision.rule is None, "whoever is no member is told of no rule"


def test_a_rule_gives_its_reason_to_whom_it_stops():
    rule = {"name": "hr", "then": "deny", "tools": ["mail_send"], "reason": "Ask the works council."}
    policy = Policy(read_rules([rule]))
    tool = Named("mail_send", frozenset({Effect.EXTERNAL}))

    decision = policy.decide(tool, Role.EDITOR)

    assert (decision.rule, decision.reason(tool.name)) == (
        "hr",
        "The rule hr refuses this: Ask the works council.",
    )


def test_an_operation_that_came_later_is_judged_by_the_same_rules():
    policy = Policy(read_rules([{"name": "hr", "then": "deny", "effects": ["external"]}]))
    policy.check({"tool": ()})

    assert policy.decide(Named("late", frozenset({Effect.EXTERNAL})), Role.OWNER).rule == "hr"
    assert policy.decide(Named("late", frozenset({Effect.READ})), Role.VIEWER).ruling is Ruling.ALLOW


def test_tags_are_needed_only_where_a_rule_names_one():
    assert not Policy(read_rules([{"name": "a", "then": "deny", "effects": ["write"]}])).is_by_tags
    assert Policy(read_rules([{"name": "a", "then": "deny", "tags": ["hr"]}])).is_by_tags


@pytest.mark.parametrize("condition", [{"tools": ["mail_sned"]}, {"agents": ["mail_send"]}])
def test_a_rule_about_what_there_is_not_stops_the_start(condition: dict[str, Any]):
    policy = Policy(read_rules([{"name": "hr", "then": "deny", **condition}]))

    with pytest.raises(SettingsInvalid, match=r"rule hr, (tools|agents): there is no (tool|agent) 'mail_s"):
        policy.check({"tool": {"mail_send"}, "agent": ()})


def test_a_pattern_may_fit_nothing_yet():
    Policy(read_rules([{"name": "a", "then": "deny", "tools": ["gmail_*"], "agents": ["gpt-?"]}])).check({})


GOOD: dict[str, Any] = {"name": "hr", "then": "deny", "tags": ["hr"]}


BAD: list[tuple[Any, str]] = [
    ({"name": "hr"}, "must be a list of rules"),
    (["deny all"], "rule 1, rule: Input should be"),
    ([{"then": "deny", "tags": ["hr"]}], "rule 1, name: Field required"),
    ([GOOD, {"name": "x y", "then": "deny", "tags": ["hr"]}], "rule x y, name: String should match"),
    ([GOOD | {"then": "allow"}], "rule hr, then: Input should be 'deny' or 'approval'"),
    ([GOOD | {"effects": ["sned"]}], "rule hr, effects.0: Input should be 'read'"),
    ([GOOD | {"roles": ["guest"]}], "rule hr, roles.0: Input should be 'viewer'"),
    ([GOOD | {"tools": []}], "rule hr, tools: List should have at least 1 item"),
    ([GOOD | {"tools": ["mail send"]}], "rule hr, tools.0: String should match"),
    ([GOOD | {"tol": ["x"]}], "rule hr, tol: Extra inputs are not permitted"),
    ([GOOD, GOOD], "rule hr, name: another rule has it"),
    ([{"name": "all", "then": "deny"}], "rule all: it names no condition"),
    ([GOOD | {"name": f"r{n}"} for n in range(RULES_MAX + 1)], "100 rules at most"),
]


@pytest.mark.parametrize(("given", "said"), BAD)
def test_a_rule_that_does_not_fit_is_told_with_its_field(given: Any, said: str):
    with pytest.raises(ValueError, match=said):
        read_rules(given)


def test_a_rule_about_what_may_be_added_later_is_no_error():
    rule = {"name": "hr", "then": "deny", "tools": ["mail_sned"], "agents": ["clerk"]}

    Policy(read_rules([rule])).check({"tool": None, "agent": {"clerk"}})


def test_operations_that_differ_in_nothing_but_their_names_are_told_apart_in_what_is_said():
    policy = Policy()
    first, second = (Named(name, frozenset({Effect.WRITE})) for name in ("note_add", "note_change"))

    reasons = [policy.decide(tool, Role.VIEWER).reason(tool.name) for tool in (first, second)]

    assert reasons == ["note_add needs the role editor.", "note_change needs the role editor."]


def test_the_table_is_made_anew_when_it_has_grown_too_large_and_says_the_same():
    policy = Policy(read_rules([{"name": "hr", "then": "deny", "tools": ["tool_1?"], "tags": ["hr"]}]))
    tools = [Named(f"tool_{number}", frozenset({Effect.READ})) for number in range(25_000)]

    def denied() -> list[str]:
        found = [tool for tool in tools if policy.decide(tool, Role.OWNER, ["HR"]).ruling is Ruling.DENY]
        return [tool.name for tool in found]

    assert denied() == denied() == [f"tool_1{digit}" for digit in range(10)]


def test_any_number_of_tags_may_be_named():
    tags = [f"t{n}" for n in range(200)]
    rules: list[PolicyRule] = read_rules(
        [{"name": f"r{n}", "then": "approval", "tags": tags[n:]} for n in range(RULES_MAX)]
    )
    policy, tool = Policy(rules), Named("mail_send", frozenset({Effect.EXTERNAL}))

    assert policy.decide(tool, Role.EDITOR, ["t7", "T3", "other"]).rule == "r0"
    assert policy.decide(tool, Role.EDITOR, ["other"]).ruling is Ruling.ALLOW
