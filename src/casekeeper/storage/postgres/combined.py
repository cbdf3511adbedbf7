"""Several statements as one, to save round trips to the server.

The texts are ours and few; what they are put together to is remembered.
"""

import re
from collections.abc import Sequence
from functools import cache

_PLACE = re.compile(r"\$(\d+)")


@cache
def combined_reads(texts: Sequence[str]) -> str:
    """A statement of one row, which has for each of these its rows as an array."""
    rows = [f"ARRAY(SELECT ROW(one.*) FROM ({text}) AS one)" for text in _renumbered(texts)]  # noqa: S608 - ours
    return f"SELECT {', '.join(rows)}"


@cache
def combined_writes(texts: Sequence[str], last: str | None) -> str:
    """A statement that writes all that these write and then runs the last one, which has no parameters.

    It answers with how many rows each has written, and the rows of the last one. Each is run when its count is asked
    for, so the last one comes last. None sees what another has written.
    """
    writes = [f"w{number} AS ({text} RETURNING 1)" for number, text in enumerate(_renumbered(texts))]
    counts = [f"(SELECT count(*) FROM w{number})" for number in range(len(writes))]  # noqa: S608 - likewise
    if last is not None:
        writes.append(f"last AS MATERIALIZED ({last})")
    seen = ", ARRAY(SELECT ROW(last.*) FROM last)" if last is not None else ""
    return f"WITH {', '.join(writes)} SELECT ARRAY[{', '.join(counts)}]{seen}"


def _renumbered(texts: Sequence[str]) -> list[str]:
    """The texts with the parameters of each counted on from those before it."""
    renumbered: list[str] = []
    before = 0
    for text in texts:
        renumbered.append(_PLACE.sub(lambda place, by=before: f"${int(place[1]) + by}", text))
        before += max((int(number) for number in _PLACE.findall(text)), default=0)
    return renumbered
