"""Tokens of any age, and what a logout everywhere means for each of them.

A logout takes effect somewhere between its sending and its answer. A token that was made before it was sent is dead
once it has answered, and so is any that comes from it; one that was asked for after the answer is not touched.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from math import inf
from time import monotonic

from tests.journeys.rain_ledger import Violation
from tests.journeys.rain_lines import Reply

# Well below the ten minutes of a token.
_TOKEN_S = 240.0


@dataclass(frozen=True, slots=True)
class Token:
    """A token. It was asked for at `since`; `by` then it was made, it or the one that it comes from."""

    text: str
    since: float
    by: float

    def child(self, text: str, reply: Reply) -> "Token":
        """The token that an answer gave in this one's place."""
        return Token(text, reply.sent, self.by)


@dataclass(slots=True)
class Logout:
    """A logout everywhere."""

    sent: float
    holds: float = inf


@dataclass
class Person:
    """Somebody with an API key and tokens of any age, some of which carry scopes that are long gone."""

    user_id: str
    api_key: str
    tokens: deque[Token] = field(default_factory=lambda: deque[Token](maxlen=8))
    logouts: list[Logout] = field(default_factory=list[Logout])

    def token(self, rng: random.Random) -> Token | None:
        """Any that is not about to end by itself; a logout may have ended it."""
        while self.tokens and self.tokens[0].by < monotonic() - _TOKEN_S:
            self.tokens.popleft()
        return rng.choice(self.tokens) if self.tokens else None

    def was_logged_out(self, since: float, answered: float) -> bool:
        """Whether a logout may have ended what was asked for at `since`, until `answered`."""
        return any(one.sent < answered and since < one.holds for one in self.logouts)

    def judge(self, token: Token, what: str, reply: Reply) -> None:
        """Hold whether the token was taken against the logouts; one that was refused is thrown away.

        Raises:
            Violation: It was dead and was taken, or nothing had ended it and it was refused.
        """
        if reply.status == 401:
            if not self.was_logged_out(token.since, reply.answered):
                raise Violation(
                    f"{what}: {self.user_id} was answered 401, and no logout explains it: {reply.body}"
                )
            if token in self.tokens:
                self.tokens.remove(token)
            return
        for one in self.logouts:
            if one.holds <= reply.sent and token.by <= one.sent:
                raise Violation(
                    f"{what}: {self.user_id} was answered {reply.status}, {(reply.sent - one.holds) * 1000:.0f} ms "
                    "after the answer of a logout that had ended the token"
                )
