from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.acl import (
    ROLE_FOR_ACTION,
    ROLE_FOR_EFFECT,
    Action,
    Effect,
    Grant,
    Role,
    may_export,
    role_for_effects,
    roles_for,
)

NOW = datetime(2025, 10, 23, 12, tzinfo=UTC)
ROLES = st.sampled_from(Role)
EFFECTS = st.frozensets(st.sampled_from(Effect))

# The table of roles, row by row, written out by hand: what each role may and the one below it may not.
NEW_WITH: dict[Role, set[Action]] = {
    Role.VIEWER: {Action.READ, Action.WORK, Action.SEE_GRANTS},
    Role.EDITOR: {Action.ADD, Action.JOIN},
    Role.ADMIN: {Action.EDIT, Action.GRANT, Action.SUPERVISE, Action.DESTROY},
    Role.OWNER: {Action.TRANSFER, Action.DELETE, Action.EXPORT},
}


def actions_of(role: Role) -> set[Action]:
    return {action for action in Action if role.covers(ROLE_FOR_ACTION[action])}


def a_grant(expires_at: datetime | None) -> Grant:
    return Grant(
        casefile_id="cf_251023_5acf44",
        user_id="sam@example.com",
        role=Role.EDITOR,
        expires_at=expires_at,
        granted_by="anna@example.com",
        granted_at=NOW,
    )


@given(ROLES, ROLES)
def test_roles_only_gain_going_up(lower: Role, higher: Role):
    if list(Role).index(lower) <= list(Role).index(higher):
        assert actions_of(lower) <= actions_of(higher)
        assert higher.covers(lower)
    else:
        assert not higher.covers(lower)


@pytest.mark.parametrize("role", Role)
def test_each_role_brings_what_the_contract_says(role: Role):
    below = [r for r in Role if list(Role).index(r) < list(Role).index(role)]

    gained = actions_of(role) - {action for r in below for action in actions_of(r)}

    assert gained == NEW_WITH[role]


def test_every_action_and_effect_has_a_role():
    assert set(ROLE_FOR_ACTION) == set(Action)
    assert set(ROLE_FOR_EFFECT) == set(Effect)


@pytest.mark.parametrize(
    ("effects", "role"),
    [
        (set[Effect](), Role.VIEWER),
        ({Effect.READ}, Role.VIEWER),
        ({Effect.WRITE}, Role.EDITOR),
        ({Effect.READ, Effect.EXTERNAL}, Role.EDITOR),
        ({Effect.READ, Effect.DESTRUCTIVE}, Role.ADMIN),
        (set(Effect), Role.ADMIN),
    ],
)
def test_the_needed_role_follows_from_the_effects(effects: set[Effect], role: Role):
    assert role_for_effects(frozenset(effects)) is role


@given(EFFECTS, EFFECTS)
def test_more_effects_never_need_a_smaller_role(some: frozenset[Effect], more: frozenset[Effect]):
    assert role_for_effects(some | more).covers(role_for_effects(some))


@given(ROLES, EFFECTS, EFFECTS)
def test_a_role_that_covers_two_sets_of_effects_covers_both_at_once(
    role: Role, one: frozenset[Effect], other: frozenset[Effect]
):
    both = role.covers(role_for_effects(one)) and role.covers(role_for_effects(other))

    assert role.covers(role_for_effects(one | other)) == both


def test_a_grant_without_an_end_is_live():
    assert a_grant(None).is_live(NOW + timedelta(days=36_500))


@pytest.mark.parametrize(("microseconds", "live"), [(-1, True), (0, False), (1, False)])
def test_a_grant_ends_at_its_very_instant(microseconds: int, live: bool):
    grant = a_grant(NOW + timedelta(days=1))

    assert grant.is_live(NOW + timedelta(days=1, microseconds=microseconds)) is live


def test_the_roles_for_an_action_are_those_that_cover_it():
    assert roles_for(Action.SUPERVISE) == (Role.ADMIN, Role.OWNER)
    assert all(roles_for(action)[-1] is Role.OWNER for action in Action)


@pytest.mark.parametrize("role", [None, *Role])
def test_owners_and_operators_export(role: Role | None):
    assert may_export(role, is_operator=False) == (role is Role.OWNER)
    assert may_export(role, is_operator=True)
