"""The deployment's Ed25519 signing keys: one file a key, the newest signs, all verify.

A rotation adds a file; tokens signed by the old key stay valid until they end. A key file can be removed one token
lifetime after its successor appeared.
"""

import errno
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from joserfc.jwk import OKPKey

# Unknown kids are attacker input: looking at the disk for each would be a gift.
_RELOAD_AFTER_S = 5.0
# Names the key that is made where there is none, so that processes which start at once make the same one.
_FIRST = "first"


def made_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """A file's content, made where there is none: of processes that start at once one makes it, and all read the same.

    Nobody ever sees half of it. Made for its owner alone, in a directory likewise.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        try:
            # Unlike a rename, it fails where somebody was quicker.
            os.link(aside, path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP):
                raise
            # No hard links here, as on a share of Windows: the last one of a race wins.
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    return path.read_bytes()


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
            self._make(made_once(directory / _FIRST, lambda: _new_kid().encode()).decode())

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
        kid = _new_kid()
        self._make(kid)
        return kid

    def _make(self, kid: str) -> None:
        made_once(self._directory / f"{kid}.pem", _new_key)
        self._read()

    def _read(self) -> None:
        self._read_at = self._elapsed_s()
        for path in self._directory.glob("*.pem"):
            if path.stem not in self._keys:
                self._keys[path.stem] = OKPKey.import_key(path.read_bytes())


def _new_key() -> bytes:
    return OKPKey.generate_key("Ed25519").as_pem(private=True)


def _new_kid() -> str:
    return f"{time.time_ns():020d}-{secrets.token_hex(4)}"
