from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from casekeeper.sessions.manager import At
from casekeeper.sessions.session import Head, Total, UnifiedSession
from casekeeper.sessions.statistics import statistics
from tests.unit.support import ANNA, NOW, House

SESSION = UnifiedSession(
    session_id="ts_251023_ecomcf44_9607c3",
    casefile_id="cf_251023_5acf44",
    user_id=ANNA,
    created_at=NOW,
    last_activity_at=NOW + timedelta(seconds=90),
    head=Head(12, "ab"),
)
KINDS = ["succeeded", "failed", "cancelled", "timed_out", "interrupted", "denied"]
TOTALS = st.lists(
    st.builds(
        Total,
        st.sampled_from(["tool", "agent"]),
        st.sampled_from(["note_add", "mail_search"]),
        st.sampled_from(KINDS),
        st.integers(1, 100),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.integers(0, 10**9),
    ),
    max_size=12,
)


def a_total(kind: str, count: int = 1, name: str = "note_add", cost_micros: int = 0) -> Total:
    return Total("tool", name, kind, count, 0, 0, cost_micros)


def test_a_session_without_operations_has_empty_figures():
    figures = statistics(replace(SESSION, head=None), [])

    assert figures.model_dump() == {
        "event_count": 0,
        "operations": {"total": 0, "succeeded": 0, "failed": 0, "denied": 0},
        "by_type": {},
        "by_name": {},
        "duration_s": 90.0,
        "busy_ms": 0,
        "tokens": 0,
        "cost": "0.000000",
    }


def test_whatever_is_neither_success_nor_denial_is_a_failure():
    figures = statistics(SESSION, [a_total(kind) for kind in KINDS])

    assert figures.operations.model_dump() == {"total": 6, "succeeded": 1, "failed": 4, "denied": 1}


@given(TOTALS)
def test_every_operation_is_counted_once_everywhere(totals: list[Total]):
    figures = statistics(SESSION, totals)

    counts = figures.operations
    assert counts.total == counts.succeeded + counts.failed + counts.denied == sum(t.count for t in totals)
    assert sum(figures.by_type.values()) == sum(figures.by_name.values()) == counts.total


@given(TOTALS)
def test_the_order_of_totals_does_not_count(totals: list[Total]):
    assert statistics(SESSION, totals) == statistics(SESSION, totals[::-1])


def test_a_cost_is_exact_to_the_millionth():
    figures = statistics(SESSION, [a_total("succeeded", cost_micros=n) for n in (1_000_000, 234_567, 1)])

    assert figures.cost == "1.234568"


def test_the_number_of_facts_is_the_heads():
    assert statistics(SESSION, []).event_count == 12


def test_a_closed_session_lasted_until_its_closing():
    closed = replace(SESSION, closed_at=NOW + timedelta(minutes=5))

    assert statistics(closed, []).duration_s == 300.0


def test_an_operation_without_a_name_counts_in_no_name():
    assert statistics(SESSION, [a_total("denied", name="")]).by_name == {}


async def test_the_store_counts_as_the_record_does(house: House):
    anna = await house.caller(ANNA)
    casefile = await house.casefile(anna)
    place = At(casefile_id=casefile.casefile_id)
    for _ in range(3):
        await house.run(anna, place, "echo")
    outcome = await house.run(anna, place, "fail")
    await house.run(anna, place, "nest", tool_name="nothing_like_it")
    session = await house.storage.sessions.session(outcome.session_id)
    assert session is not None

    figures = statistics(session, await house.storage.sessions.totals(outcome.session_id))

    assert figures.event_count == len(await house.facts(outcome.session_id))
    assert figures.operations.model_dump() == {"total": 6, "succeeded": 4, "failed": 1, "denied": 1}
    assert figures.by_name == {"echo": 3, "fail": 1, "nest": 1, "nothing_like_it": 1}
