"""What an issuer publishes, as far as it is believed: fetched when it is needed, kept while the issuer is unavailable.

Nobody who logs in or sends tokens decides how often an issuer is asked: there is one look at a time, for all together.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

from casekeeper.errors import IssuerUnavailable

RENEW_AFTER_S = 600.0
"""What is older is used still, and renewed meanwhile."""

OLD_S = 3600.0
"""What is older is used only if it cannot be renewed."""

STALE_S = 24 * 3600.0
"""What could not be renewed for a day is not believed any more."""

COOLDOWN_S = 30.0
"""Between looks while there is something that is believed."""

RETRY_S = 5.0
"""Between looks while there is nothing."""

Fetch = Callable[[str], Awaitable[bytes]]
"""The bytes at an address. Has a deadline and a size cap, follows no redirect.

Raises:
    FetchFailed: It did not answer with them.
"""

T = TypeVar("T")

_log = logging.getLogger("casekeeper.security")


class FetchFailed(Exception):
    """An address did not give what was asked for."""


class Published(Generic[T]):
    """One thing that one issuer publishes. `fetch` may raise `FetchFailed`, which leaves what there is."""

    def __init__(
        self,
        issuer: str,
        what: str,
        fetch: Callable[[], Awaitable[T]],
        elapsed_s: Callable[[], float] = monotonic,
    ) -> None:
        self._issuer = issuer
        self._what = what
        self._fetch = fetch
        self._elapsed_s = elapsed_s
        self._kept: T | None = None
        self._kept_at = self._tried_at = float("-inf")
        self._renewing: asyncio.Task[None] | None = None

    async def current(self) -> T:
        """What is believed now.

        Raises:
            IssuerUnavailable: There is nothing that can be believed, and the issuer does not give it.
        """
        age = self._age_s
        if age > STALE_S:
            await self._look(RETRY_S)
        elif age > OLD_S:
            # Nobody has used it for long: what the issuer has taken back must not let anybody in.
            await self._look(COOLDOWN_S)
        elif age > RENEW_AFTER_S and self._may_look(COOLDOWN_S):
            self._renew()
        return self._believed()

    async def looked_up_again(self) -> T:
        """What is believed after another look, where the last one was not just now.

        Raises:
            IssuerUnavailable: There is nothing that can be believed.
        """
        await self._look(COOLDOWN_S)
        return self._believed()

    @property
    def _age_s(self) -> float:
        return self._elapsed_s() - self._kept_at

    def _believed(self) -> T:
        if self._kept is None or self._age_s > STALE_S:
            raise IssuerUnavailable(f"{self._what} of {self._issuer} cannot be fetched.")
        return self._kept

    def _may_look(self, pause_s: float) -> bool:
        return self._renewing is not None or self._elapsed_s() - self._tried_at >= pause_s

    async def _look(self, pause_s: float) -> None:
        if self._may_look(pause_s):
            # Others wait for it, too, whoever gives up.
            await asyncio.shield(self._renew())

    def _renew(self) -> asyncio.Task[None]:
        if self._renewing is None:
            self._tried_at = self._elapsed_s()
            self._renewing = asyncio.create_task(self._fetched())
        return self._renewing

    async def _fetched(self) -> None:
        try:
            self._kept, self._kept_at = await self._fetch(), self._elapsed_s()
        except FetchFailed as error:
            _log.warning("%s: %s", self._issuer, error)
        finally:
            self._renewing = None
