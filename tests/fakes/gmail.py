"""Gmail's search as others have rebuilt it: the PyPI package `myworld`, a practice world for agents.

It comes without a licence, so it is fetched when the tests run, once per virtual environment, and never kept with the
code.
"""

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.support import unavailable

PACKAGE = "myworld==0.2.1"
_SHA256 = "63b95346fc367e36636c622d83381a7823ea2e835b1ce85a1b665e4500f91084"
_MODULE = "myworld/services/gmail/search_full.py"

Message = Mapping[str, Any]


class RebuiltGmail:
    """A mailbox that answers Gmail's queries."""

    def __init__(self, user: str, labels: Sequence[str], messages: Sequence[Message]) -> None:
        self._search = _fetched()
        names = {
            **{name.upper(): name for name in ("Inbox", "Unread", "Starred", "Spam")},
            **{n: n for n in labels},
        }
        self._box = {
            "user": {"email": user},
            "labels": {
                id_: {"id": id_, "name": name, "type": "user" if name in labels else "system"}
                for id_, name in names.items()
            },
        }
        self._messages = messages

    def find(self, query: str, now: datetime) -> set[str]:
        """The ids of what a query finds."""
        tree = self._search.parse(query)
        return {one["id"] for one in self._messages if self._search.matches(self._box, one, query, now, tree)}

    def size(self, message: Message) -> int:
        """As it counts bytes."""
        return self._search._size(message)


def _fetched() -> Any:
    folder = Path(sys.prefix) / "rebuilt-gmail"
    if not (folder / _MODULE).exists():
        uv = os.environ.get("UV") or shutil.which("uv") or str(Path(__file__).parents[2] / ".uv/bin/uv")  # noqa: TID251
        # Aside, then renamed: tests run in several processes.
        aside = folder.with_name(f"rebuilt-gmail.{os.getpid()}")
        command = [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(aside), PACKAGE]
        try:
            subprocess.run(command, check=True, timeout=120)
        except (OSError, subprocess.SubprocessError):
            unavailable(f"the package {PACKAGE}")
        if not folder.exists():
            aside.replace(folder)
        shutil.rmtree(aside, ignore_errors=True)
    assert hashlib.sha256((folder / _MODULE).read_bytes()).hexdigest() == _SHA256
    sys.path.append(str(folder))
    try:
        module: Any = importlib.import_module("myworld.services.gmail.search_full")
    finally:
        sys.path.remove(str(folder))
    # The words of a text, found anew for each term, are most of its time.
    module._words = lru_cache(100_000)(module._words)
    return module
