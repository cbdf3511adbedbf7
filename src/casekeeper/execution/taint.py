"""Taint: what somebody else may have written must not become the caller's wish unnoticed.

A run is tainted once an answer that may hold such words has come back into it. Taint goes down to all nested calls and up
through answers, and is kept on the record; where it matters, the policy asks for an approval (docs/policies.md).
"""

from collections.abc import Collection

from casekeeper.acl import Effect
from casekeeper.kinds import KINDS, OperationType

# What comes back from any other operation may hold what somebody else has written.
_TELL_NOTHING = frozenset({Effect.WRITE, Effect.DESTRUCTIVE})


def answer_taints(
    around: OperationType, nested: OperationType, effects: Collection[Effect] | None, *, is_tainted: bool
) -> bool:
    """Whether an operation is tainted by the answer of a nested one.

    One that is steered by what it reads, such as an agent, is by whatever it reads; any other by the answer of one that is
    steered, or that is tainted itself. `effects` None: it is not known what the nested operation does.
    """
    if KINDS[around].is_steered:
        return is_tainted or effects is None or not _TELL_NOTHING.issuperset(effects)
    return is_tainted or nested not in KINDS or KINDS[nested].is_steered
