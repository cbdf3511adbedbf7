"""Rate limits as headers: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11, May 2026).

Each limit that was counted is an item, named `user`, `casefile` or `tool`: `q` operations in `w` seconds, of which `r`
are left; `t` seconds from now there are more. On a 429 the `t` of what is spent agrees with `Retry-After`.
"""

from collections.abc import Sequence

from casekeeper.errors import Quota

_WINDOW_S = 60


def rate_headers(quotas: Sequence[Quota]) -> dict[str, str]:
    """The headers; none without limits."""
    if not quotas:
        return {}
    return {
        "RateLimit-Policy": ", ".join(f'"{q.name}";q={q.amount};w={_WINDOW_S}' for q in quotas),
        "RateLimit": ", ".join(f'"{q.name}";r={q.left};t={q.reset_s}' for q in quotas),
    }
