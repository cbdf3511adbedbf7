"""What may be answered while grants and revokes rain: written from the outside, from nothing but what clients see.

One process makes all changes and all checks, so one monotonic clock stamps both. A change holds at the latest when its
answer has arrived, and not before it was sent. A check that was on its way for a while may meet any state that may
have held meanwhile; where that is a single one, its answer is fixed.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

Pair = tuple[str, str]
"""A user, or `PUBLIC`, and a casefile."""

PUBLIC, READER, NOBODY = "public", "reader", "nobody"
# What the documents promise: the end of a grant counts from the second after it on.
_LATE_S = 1.0
# Clocks of processes differ from the store's by the way there.
_EARLY_S = 0.25


class Violation(AssertionError):
    """Somebody got in who may not, or did not who may."""


@dataclass(slots=True)
class Changed:
    """A change of one user's role in one casefile; `until` is when the grant ends, by the clients' clock."""

    role: str
    sent: float
    until: float = inf
    holds: float = inf

    def during(self, sent: float, answered: float) -> set[str]:
        """Who the user may be for a check on its way at that time."""
        if self.role == NOBODY or sent > self.until + _LATE_S:
            return {NOBODY}
        return {self.role, NOBODY} if answered > self.until - _EARLY_S else {self.role}


@dataclass
class Ledger:
    """All changes in their order, one at a time for each pair."""

    changes: dict[Pair, list[Changed]] = field(default_factory=dict[Pair, list[Changed]])
    told: Counter[str] = field(default_factory=Counter[str])

    def begin(self, pair: Pair, role: str, sent: float, until: float = inf) -> Changed:
        """A change is about to be sent."""
        change = Changed(role, sent, until)
        self._of(pair).append(change)
        return change

    def withdraw(self, pair: Pair) -> None:
        """The newest change was refused."""
        self._of(pair).pop()

    def present(self, pair: Pair) -> Changed:
        """The newest change."""
        return self._of(pair)[-1]

    def _of(self, pair: Pair) -> list[Changed]:
        return self.changes.setdefault(pair, [Changed(NOBODY, -inf, holds=-inf)])

    def possible(self, pair: Pair, sent: float, answered: float) -> set[str]:
        """All that the user may have been in the casefile between these instants."""
        roles = set[str]()
        for change in reversed(self._of(pair)):
            if change.sent < answered:
                roles |= change.during(sent, answered)
            if change.holds <= sent:
                break
        return roles

    def who(self, pair: Pair, sent: float, answered: float) -> set[str]:
        """The same; where the casefile may have been public, whoever was nobody may have been a reader."""
        roles = self.possible(pair, sent, answered)
        if NOBODY not in roles:
            return roles
        return roles - {NOBODY} | self.possible((PUBLIC, pair[1]), sent, answered)

    def judge(self, pair: Pair, what: str, sent: float, answered: float, implied: Iterable[str]) -> None:
        """Hold an answer against what may have been; `implied` are the roles that get it.

        Raises:
            Violation: None of them may have been.
        """
        possible, implied = self.who(pair, sent, answered), set(implied)
        fixed = len(possible) == 1
        self.told["fixed" if fixed else "open"] += 1
        for what_went, where in (("a revoke", pair), ("a public role", (PUBLIC, pair[1]))):
            if fixed and NOBODY in possible and sent - self.present(where).holds < 1:
                self.told[f"just after {what_went}"] += 1
        if not possible & implied:
            since = sent - max(self.present(pair).holds, self.present((PUBLIC, pair[1])).holds)
            raise Violation(
                f"{what}: {pair[0]} in {pair[1]} was answered as {sorted(implied)}, but can only have been "
                f"{sorted(possible)}; sent {since * 1000:.0f} ms after the newest change held, answered "
                f"{(answered - sent) * 1000:.0f} ms later"
            )
