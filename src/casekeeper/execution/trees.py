"""Open operations as trees: each nested one is inside the one that called it, in the same session."""

from collections.abc import Collection, Iterable, Sequence

from casekeeper.journal.operations import OpenedOperation


def deepest_first(found: Iterable[OpenedOperation]) -> list[OpenedOperation]:
    """The order in which they end: an operation never ends before those inside it."""
    by_id = {one.row.event_id: one for one in found}
    return sorted(by_id.values(), key=lambda one: len(_around(one, by_id)), reverse=True)


def inside(around: Collection[str], found: Iterable[OpenedOperation]) -> list[OpenedOperation]:
    """What of this is inside one of the operations with these ids, at any depth, and none of them itself."""
    by_parent: dict[str | None, list[OpenedOperation]] = {}
    for one in found:
        by_parent.setdefault(one.row.parent_event_id, []).append(one)
    all_inside: dict[str, OpenedOperation] = {}
    level = set(around)
    while level:
        children = [child for event_id in level for child in by_parent.get(event_id, ())]
        level = {one.row.event_id for one in children} - all_inside.keys() - set(around)
        all_inside |= {one.row.event_id: one for one in children if one.row.event_id in level}
    return list(all_inside.values())


def held_up(by: Iterable[OpenedOperation], found: Iterable[OpenedOperation]) -> dict[str, OpenedOperation]:
    """Which of these cannot end yet, by id, each with one of those inside it that it has to wait for."""
    by_id = {one.row.event_id: one for one in found}
    return {event_id: one for one in by for event_id in _around(one, by_id)}


def trees(found: Iterable[OpenedOperation]) -> list[Sequence[OpenedOperation]]:
    """What belongs together, in the order in which it came."""
    by_root: dict[str, list[OpenedOperation]] = {}
    for one in found:
        by_root.setdefault(one.row.root_event_id, []).append(one)
    return list(by_root.values())


def _around(one: OpenedOperation, by_id: dict[str, OpenedOperation]) -> list[str]:
    """Those of these that are around this one, the nearest first."""
    around: list[str] = []
    parent = one.row.parent_event_id
    while parent in by_id and parent not in around:
        around.append(parent)
        parent = by_id[parent].row.parent_event_id
    return around
