"""Passwords: how long they are, hashed with argon2id, checked without telling whether there is an account."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from pydantic import StringConstraints

from casekeeper.errors import Overloaded

Password = Annotated[str, StringConstraints(min_length=10, max_length=256)]
"""Ten characters at least (NIST SP 800-63B asks for eight), 256 at most, so that hashing stays cheap."""

# Each hash takes 64 MiB for a moment; two at a time keep a flood of logins from filling the memory.
_HASHES_AT_ONCE = 2
# A login that would wait for seconds is better told so.
_HASHES_WAITING = 100


class Passwords:
    """Hashes and checks passwords with argon2id, off the event loop, a few at a time."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._places = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._waiting = 0
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        """The PHC string to store.

        Raises:
            Overloaded: Too many wait for theirs already.
        """
        async with self._turn():
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, password: str, stored: str | None) -> bool:
        """Whether it is the password. Takes as long where there is none, so that accounts cannot be probed.

        Raises:
            Overloaded: Too many wait for theirs already.
        """
        if stored is None:
            self._decoy = self._decoy or await self.hash("no account has this password")
        async with self._turn():
            right = await asyncio.to_thread(self._verify, stored or self._decoy or "", password)
        return right and stored is not None

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        if self._waiting >= _HASHES_WAITING:
            raise Overloaded
        self._waiting += 1
        try:
            async with self._places:
                yield
        finally:
            self._waiting -= 1

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except VerificationError:
            return False
