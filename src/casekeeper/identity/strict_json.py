"""JSON in which every name stands once.

RFC 7519 §4 leaves open what a token says that has a claim twice: the reader that checks it and the one that uses it may
each take another.
"""

import json
from typing import Any


def loads_once(raw: bytes | str) -> Any:
    """The value.

    Raises:
        ValueError: It is no JSON, or an object in it has a name twice.
    """
    return json.loads(raw, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found
