"""The deployment's Ed25519 signing keys: one file a key, the newest signs, all verify.

A rotation adds a file; tokens signed by the old key stay valid until they end. A key file can be removed one token
lifetime after its successor appeared.
"""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from joserfc.jwk import OKPKey

# Unknown kids are attacker input: looking at the disk for each would be a gift.
_RELOAD_AFTER_S = 5.0


class SigningKeys:
    """The keys in a directory, read at start, again when a token names a key that is not known."""

    def __init__(self, directory: Path, elapsed_s: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._elapsed_s = elapsed_s
        self._keys: dict[str, OKPKey] = {}
        self._read_at = 0.0
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._read()
        if not self._keys:
            self.rotate()

    @property
    def current(self) -> tuple[str, OKPKey]:
        """The key that signs, with its kid."""
        kid = max(self._keys)
        return kid, self._keys[kid]

    def find(self, kid: str) -> OKPKey | None:
        """The key of this kid, looked for on disk at most every five seconds."""
        if kid not in self._keys and self._elapsed_s() - self._read_at > _RELOAD_AFTER_S:
            self._read()
        return self._keys.get(kid)

    def rotate(self) -> str:
        """Make a new key that signs from now on; returns its kid. Kids sort by age."""
        kid = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        pem = OKPKey.generate_key("Ed25519").as_pem(private=True)
        path = self._directory / f"{kid}.pem"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        self._read()
        return kid

    def _read(self) -> None:
        self._read_at = self._elapsed_s()
        for path in self._directory.glob("*.pem"):
            if path.stem not in self._keys:
                self._keys[path.stem] = OKPKey.import_key(path.read_bytes())
