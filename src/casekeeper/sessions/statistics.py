"""Statistics of a session."""

from collections.abc import Sequence

from casekeeper.sessions.session import OperationCounts, Statistics, Total, UnifiedSession


def statistics(session: UnifiedSession, totals: Sequence[Total]) -> Statistics:
    """The session in figures, out of its counted totals."""
    counts, by_type, by_name = OperationCounts(), dict[str, int](), dict[str, int]()
    for total in totals:
        counts.total += total.count
        match total.kind:
            case "succeeded":
                counts.succeeded += total.count
            case "denied":
                counts.denied += total.count
            case _:
                counts.failed += total.count
        _add(by_type, total.operation_type, total.count)
        _add(by_name, total.operation_name, total.count)
    end = session.closed_at or session.last_activity_at
    cost = sum(t.cost_micros for t in totals)
    return Statistics(
        event_count=session.head.seq if session.head else 0,
        operations=counts,
        by_type=by_type,
        by_name=by_name,
        duration_s=round((end - session.created_at).total_seconds(), 3),
        busy_ms=sum(t.busy_ms for t in totals),
        tokens=sum(t.tokens for t in totals),
        cost=f"{cost // 1_000_000}.{cost % 1_000_000:06d}",
    )


def _add(counts: dict[str, int], name: str, count: int) -> None:
    if name:
        counts[name] = counts.get(name, 0) + count
