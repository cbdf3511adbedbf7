"""The record tells of permission changes in the order in which they took effect."""

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from casekeeper.execution.recovery import Expiry
from casekeeper.journal.events import Kind
from casekeeper.server import Server
from tests.support import Api, SteppableClock, open_test_server

USERS = [f"user{number}@example.com" for number in range(5)]
TOLD = {Kind.GRANTED, Kind.ROLE_CHANGED, Kind.REVOKED, Kind.EXPIRED, Kind.TRANSFERRED}


async def test_the_record_has_the_order_of_the_feed(tmp_path: Path):
    clock = SteppableClock()
    async with open_test_server(tmp_path / "data", clock=clock) as server, Api.of(server) as api:
        owners = [await api.account(f"owner{number}@example.com") for number in range(3)]
        for user_id in USERS:
            await api.account(user_id)
        tokens = [await api.token(owner) for owner in owners]
        casefiles = [await api.casefile(token) for token in tokens]

        for round_ in range(3):
            await asyncio.gather(
                *(
                    meddle(api, token, casefile_id, clock, random.Random(seed))
                    for token, casefile_id in zip(tokens, casefiles, strict=True)
                    for seed in range(4 * round_, 4 * round_ + 4)
                )
            )
            clock.step(seconds=60)
            storage = server.storage
            await Expiry(storage.casefiles, storage.accounts, storage.commits, clock).sweep()

        for token, casefile_id in zip(tokens, casefiles, strict=True):
            feed = [change.user_id for change in await changes(server, casefile_id)]
            record = await told(api, token, casefile_id)
            # The first one is the owner's own, whom the opening of the casefile tells of.
            assert record == feed[1:]
            assert len(feed) > 12


async def meddle(
    api: Api, token: str, casefile_id: str, clock: SteppableClock, chance: random.Random
) -> None:
    """Some changes, one after the other."""
    for _ in range(4):
        user_id = chance.choice(USERS)
        about: dict[str, Any] = {"casefile_id": casefile_id, "user_id": user_id}
        match chance.randrange(3):
            case 0:
                await api.ask("/v1/permissions/revoke", about, token=token)
            case 1:
                soon = (clock() + timedelta(seconds=30)).isoformat()
                fields = {**about, "role": "editor", "expires_at": soon}
                await api.ask("/v1/permissions/grant", fields, token=token)
            case _:
                await api.ask("/v1/permissions/grant", {**about, "role": "viewer"}, token=token)


async def changes(server: Server, casefile_id: str) -> Sequence[Any]:
    """The feed, of one casefile."""
    return [c for c in await server.storage.accounts.changes(0) if c.casefile_id == casefile_id]


async def told(api: Api, token: str, casefile_id: str) -> list[str]:
    """Whom the casefile's own record names, in its order."""
    casefile = await api.ask("/v1/casefiles/get", {"casefile_id": casefile_id}, token=token)
    page = {"view": "journal", "limit": 200}
    session = await api.ask(
        "/v1/sessions/get", {"session_id": casefile["record_session_id"], "events": page}, token=token
    )
    return [fact["inputs"]["user_id"] for fact in session["events"]["items"] if fact["kind"] in TOLD]
