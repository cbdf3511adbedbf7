import json

from hypothesis import given
from hypothesis import strategies as st

from casekeeper.acl import Role
from casekeeper.acl_feed import Scope
from casekeeper.identity.tokens import MAX_SCOPES_BYTES, fit_scopes


def scopes_of(count: int, name: str = "cf_251023_") -> dict[str, Scope]:
    return {f"{name}{number:06x}": Scope(Role.EDITOR, 1_761_220_800) for number in range(count)}


def test_64_scopes_fit():
    kept, evicted = fit_scopes(scopes_of(64))

    assert (len(kept), evicted) == (64, ())


def test_the_least_recently_used_scopes_leave_first():
    scopes = scopes_of(66)

    kept, evicted = fit_scopes(scopes)

    assert (list(evicted), list(kept)) == (list(scopes)[:2], list(scopes)[2:])


@given(st.integers(0, 40), st.integers(100, 400))
def test_scopes_never_take_more_than_4_kb(count: int, length: int):
    kept, evicted = fit_scopes(scopes_of(count, "x" * length))

    text = json.dumps({c: [s.role, s.not_after] for c, s in kept.items()}, separators=(",", ":"))
    assert len(text) <= MAX_SCOPES_BYTES
    assert [*evicted, *kept] == list(scopes_of(count, "x" * length))


@given(st.integers(0, 40), st.integers(100, 400))
def test_no_scope_leaves_that_would_fit(count: int, length: int):
    scopes = scopes_of(count, "x" * length)
    kept, evicted = fit_scopes(scopes)

    if evicted:
        more = {evicted[-1]: scopes[evicted[-1]], **kept}
        assert fit_scopes(more)[1] == (evicted[-1],)
