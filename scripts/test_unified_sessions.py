"""The integration script of the unified session API: server health, the five endpoints, the creation flow.

python scripts/test_unified_sessions.py              starts a server of its own, on a free port, in a temporary directory
python scripts/test_unified_sessions.py --url URL    asks a running server, with the login saved by `casekeeper login URL`
"""

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from casekeeper.cli import saved_logins
from casekeeper.client import ApiError, Casekeeper

USER = "sam@example.com"
ENDPOINTS = [f"/v1/sessions/{verb}" for verb in ("execute", "create", "get", "list", "close")]


class Wrong(Exception):
    """A test found something else than it should have."""


async def health(ck: Casekeeper) -> None:
    """The server answers."""
    async with httpx2.AsyncClient(base_url=ck.url) as http:
        status = (await http.get("/readyz")).status_code
    if status != 200:
        raise Wrong(f"Server is not ready (status: {status})")
    print(f"✓ Server is running (status: {status})")


async def endpoints(ck: Casekeeper) -> None:
    """The OpenAPI document has the five session endpoints."""
    async with httpx2.AsyncClient(base_url=ck.url) as http:
        paths: dict[str, Any] = (await http.get("/openapi.json")).json()["paths"]
    for endpoint in ENDPOINTS:
        if "post" not in paths.get(endpoint, {}):
            raise Wrong(f"Endpoint missing: {endpoint}")
        print(f"✓ Endpoint found: {endpoint}")


async def creation(ck: Casekeeper) -> None:
    """A casefile, a session in it, and the session read back."""
    casefile = await ck.casefiles.create("Integration test")
    print(f"✓ Created casefile: {casefile.casefile_id}")
    created = await ck.sessions.create(casefile.casefile_id)
    print(f"✓ Created session: {created.session_id}")
    session = await ck.sessions.get(created.session_id)
    if (session.session_id, session.casefile_id) != (created.session_id, casefile.casefile_id):
        raise Wrong("The session read back is another one")
    print("✓ Retrieved session successfully")
    print(f"  Session ID: {session.session_id}\n  User ID: {session.user_id}\n  Active: {session.active}")
    await ck.sessions.close(created.session_id)
    await ck.casefiles.delete(casefile.casefile_id)


TESTS: list[tuple[str, Callable[[Casekeeper], Awaitable[None]]]] = [
    ("Server Health", health),
    ("Unified Session Endpoints", endpoints),
    ("Session Creation Flow", creation),
]


@asynccontextmanager
async def own_server() -> AsyncGenerator[Casekeeper]:
    """A fresh server in a process of its own, and a client for a user of it."""
    with tempfile.TemporaryDirectory() as data:
        command = ("-m", "casekeeper.cli", "serve", "--port", "0", "--data", data, "--json")
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            login = json.loads(await process.stdout.readline())
            url = json.loads(await process.stdout.readline())["url"]
            password = secrets.token_urlsafe(12)
            async with Casekeeper(url, user_id=login["user_id"], password=login["password"]) as operator:
                await operator.accounts.create(USER, password=password)
            async with Casekeeper(url, user_id=USER, password=password) as ck:
                yield ck
        finally:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def running_server(url: str) -> AsyncGenerator[Casekeeper]:
    """A client with the saved login of a running server."""
    login = saved_logins.find(saved_logins.normal(url))
    if login is None:
        raise Wrong(f"There is no login for {url}. Make one with: casekeeper login {url}")
    async with Casekeeper(login.url, api_key=login.api_key) as ck:
        yield ck


async def main(url: str | None) -> int:
    """Run the tests; returns the exit code."""
    passed = 0
    async with running_server(url) if url else own_server() as ck:
        for number, (title, test) in enumerate(TESTS, start=1):
            print(f"Test {number}: {title}")
            try:
                await test(ck)
                passed += 1
            except (Wrong, ApiError, httpx2.HTTPError) as error:
                print(f"✗ {error}")
            print()
    print(f"RESULTS: {passed}/{len(TESTS)} tests passed")
    if passed < len(TESTS):
        return 1
    print("✓ All tests passed! Migration successful.")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Integration test of the unified session API.")
    parser.add_argument("--url", help="a running server; else one is started")
    try:
        sys.exit(asyncio.run(main(parser.parse_args().url)))
    except Wrong as wrong:
        sys.exit(f"✗ {wrong}")
