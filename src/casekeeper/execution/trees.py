"""Open operations as trees: each nested one is inside the one that called it, in the same session."""

from collections.abc import Iterable, Sequence

from casekeeper.journal.operations import OpenedOperation


def deepest_first(found: Iterable[OpenedOperation]) -> list[OpenedOperation]:
    """The order in which what can go on elsewhere is ended: an operation never ends before those inside it."""
    return sorted(found, key=lambda one: one.row.held.depth if one.row.held else 0, reverse=True)


def inside(around: Iterable[OpenedOperation], found: Iterable[OpenedOperation]) -> list[OpenedOperation]:
    """What of this is inside one of those, at any depth."""
    by_parent: dict[str | None, list[OpenedOperation]] = {}
    for one in found:
        by_parent.setdefault(one.row.parent_event_id, []).append(one)
    all_inside: dict[str, OpenedOperation] = {}
    level = list(around)
    while level:
        level = [child for one in level for child in by_parent.get(one.row.event_id, ())]
        level = [child for child in level if child.row.event_id not in all_inside]
        all_inside |= {child.row.event_id: child for child in level}
    return list(all_inside.values())


def trees(found: Iterable[OpenedOperation]) -> list[Sequence[OpenedOperation]]:
    """What belongs together, in the order in which it came."""
    by_root: dict[str, list[OpenedOperation]] = {}
    for one in found:
        by_root.setdefault(one.row.root_event_id, []).append(one)
    return list(by_root.values())
