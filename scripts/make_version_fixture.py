"""Makes the fixtures of the version before (tests/fixtures/version-0.1), by the code of that version.

It cannot be run on this version: it must be run in a checkout of the old one, whose `casekeeper` and `tests` it imports, with
an environment that has its development dependencies, PostgreSQL with `pg_dump` and the Firestore emulator at hand:

    git worktree add ../old b8e3fb7
    cd ../old
    PYTHONPATH=src:. python ../casekeeper/scripts/make_version_fixture.py ../casekeeper/tests/fixtures/version-0.1

Each run draws new ids, keys and secrets, so the files differ from those that it replaces, and the tests read what they
need from them. A server of the old version works on each store in a process of its own and kills itself in the middle of
an operation; then the store is written off: SQLite's file after a checkpoint, PostgreSQL by `pg_dump --inserts`, Firestore's
documents as its REST interface gives them. With the data directory's keys, blobs and index, and a story that says what was
made (`story.json`), that is one archive a store.
"""

import asyncio
import gzip
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tests.fakes.firestore import running_emulator
from tests.fakes.postgres import running_postgres
from tests.support import Api, SteppableClock, Workshop, bearer, open_test_server

from casekeeper import client

Json = dict[str, Any]

_SAMPLE = Path(str(client.__file__)).parents[1] / "documents" / "sample.mbox"
_EXECUTE = "/v1/sessions/execute"
# All that a server needs to go on; what it makes anew by itself (locks, spools) stays behind.
_KEPT = ("casekeeper.db", "search.db", "keys/*", "blobs/**/*")
# Whatever machine makes the fixtures.
_HOST = "the-machine-of-version-0-1"


def main() -> None:
    """Make all three archives in a directory."""
    if sys.argv[1] == "--work":
        address, data, story = sys.argv[2:]
        asyncio.run(_work(address, Path(data), Path(story)))
        return
    into = Path(sys.argv[1]).resolve()
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        _make_sqlite(Path(made) / "sqlite", into)
        _make_postgresql(Path(made) / "postgresql", into)
        _make_firestore(Path(made) / "firestore", into)


def _make_sqlite(data: Path, into: Path) -> None:
    story = _worked("", data)
    _pack(into / "sqlite.tar.gz", data, {"story.json": story})


def _make_postgresql(data: Path, into: Path) -> None:
    with running_postgres() as server:
        url = asyncio.run(server.make())
        story = _worked(url, data)
        [tools] = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_dump")][-1:]
        dump = [tools / "pg_dump", "--inserts", "--no-owner", "--no-privileges", url]
        sql = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
    # What begins with a backslash is for psql alone.
    lines = [line for line in sql.splitlines(keepends=True) if not line.startswith("\\")]
    _pack(into / "postgresql.tar.gz", data, {"story.json": story, "dump.sql": "".join(lines)})


def _make_firestore(data: Path, into: Path) -> None:
    with running_emulator() as emulator:
        address = emulator.address()
        story = _worked(address, data)
        parts = urlsplit(address)
        top = f"projects/{parts.netloc}/databases/(default)/documents"
        found = _documents(f"http://{emulator.host}/v1/", top)
    documents = json.dumps([_relative(one, top) for one in found], indent=0)
    _pack(into / "firestore.tar.gz", data, {"story.json": story, "documents.json": documents})


def _documents(url: str, parent: str) -> list[Json]:
    """All documents below one, or below the top."""
    found: list[Json] = []
    for collection in _asked(f"{url}{parent}:listCollectionIds", {"pageSize": 1000}).get("collectionIds", []):
        token = ""
        while True:
            page = _asked(f"{url}{parent}/{collection}?pageSize=300&showMissing=true&pageToken={token}")
            for document in page.get("documents", []):
                # A missing one is only a name above others.
                found += [document] if "createTime" in document else []
                found += _documents(url, document["name"])
            if not (token := page.get("nextPageToken", "")):
                break
    return found


def _relative(document: Json, top: str) -> Json:
    fields = document.get("fields", {})
    if "host" in fields:
        fields["host"] = {"stringValue": _HOST}
    return {"path": document["name"].removeprefix(f"{top}/"), "fields": fields}


def _asked(url: str, body: Json | None = None) -> Json:
    # The emulator shows everything to whoever calls itself the owner.
    headers = {"content-type": "application/json", "authorization": "Bearer owner"}
    with urlopen(Request(url, json.dumps(body).encode() if body else None, headers), timeout=60) as answer:
        return json.load(answer)


def _pack(path: Path, data: Path, more: dict[str, str]) -> None:
    files = {name: text.encode() for name, text in more.items()}
    for database in data.glob("*.db"):
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for pattern in _KEPT:
        files |= {str(p.relative_to(data)): p.read_bytes() for p in data.glob(pattern) if p.is_file()}
    # No times and no owners: the same contents are the same file.
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    print(f"{path.name}: {path.stat().st_size:,} bytes; {', '.join(sorted(files))}")


def _worked(address: str, data: Path) -> str:
    """Have a server work on a store until it kills itself; returns its story."""
    story = data.with_name(f"{data.name}.json")
    work = [sys.executable, __file__, "--work", address, str(data), str(story)]
    ended = subprocess.run(work, check=False)
    if ended.returncode != -signal.SIGKILL:
        raise SystemExit(f"the server should have died at work, and ended with {ended.returncode}")
    return story.read_text()


async def _work(address: str, data: Path, story: Path) -> None:
    """Work on a store, write down what was made, and die at work."""
    shop, clock = Workshop(), SteppableClock()
    where: Json = {"store": address} if address else {}
    async with (
        open_test_server(data, workshop=shop, clock=clock, **where) as server,
        Api.of(server) as api,
    ):
        told = await _History(api, clock, shop).told()
        # Whatever the store writes behind an answer is written by then.
        await asyncio.sleep(3)
        story.write_text(json.dumps(told, indent=1))  # noqa: ASYNC240 - its last deed
        os.kill(os.getpid(), signal.SIGKILL)


class _History:
    """What people do in the old version."""

    def __init__(self, api: Api, clock: SteppableClock, shop: Workshop) -> None:
        self.api = api
        self.clock = clock
        self.shop = shop
        self.users: dict[str, Json] = {}
        self.tokens: dict[str, str] = {}

    async def told(self) -> Json:
        """Everything, in order; what the tests have to know of it."""
        for name in ("owner", "reader", "revoked", "passing"):
            await self._user(name)
        created = {"title": "Rent dispute, flat 4", "description": "Heating", "tags": ["rent"]}
        made = await self._ask("owner", "/v1/casefiles/create", created | {"public_role": "viewer"})
        self.casefile_id: str = made["casefile_id"]
        ends_at = (self.clock.now + timedelta(days=1)).isoformat()
        grants: list[tuple[str, Json]] = [
            ("reader", {}),
            ("revoked", {}),
            ("passing", {"expires_at": ends_at}),
        ]
        for name, more in grants:
            grant = {"casefile_id": self.casefile_id, "user_id": self.users[name]["user_id"], **more}
            await self._ask("owner", "/v1/permissions/grant", grant | {"role": "editor"})
        sessions = await self._sessions()
        imported = await self._import(sessions["open"])
        operations = await self._operations(sessions)
        denied = await self._lose_rights()
        key = await self._ask("owner", "/v1/keys/create", {"name": "nightly export"})
        await self._ask("owner", "/v1/sessions/close", {"session_id": sessions["closed"], "reason": "Done."})
        members = await self._ask("owner", "/v1/permissions/list", {"casefile_id": self.casefile_id})
        left_open = await self._left_open(sessions["shared"])
        return {
            "now": self.clock.now.isoformat(),
            "casefile_id": self.casefile_id,
            "users": self.users,
            "sessions": sessions,
            "imported": imported,
            **operations,
            "denied": denied,
            "api_key": key,
            "members": members["items"],
            "left_open": left_open,
        }

    async def _user(self, name: str) -> None:
        user_id, password = f"{name}@example.com", f"the {name}'s password"
        await self.api.account(user_id, password=password)
        login = {"user_id": user_id, "password": password}
        tokens = (await self.api.post("/v1/auth/token", login)).json()["payload"]
        self.tokens[name] = tokens["access_token"]
        self.users[name] = {**login, "refresh_token": tokens["refresh_token"]}

    async def _sessions(self) -> dict[str, str]:
        place, sessions = {"casefile_id": self.casefile_id}, dict[str, str]()
        for name, fields in (
            ("open", {"title": "Heating costs", "metadata": {"flat": 4}}),
            ("shared", {"title": "Together", "visibility": "casefile"}),
            ("closed", {"title": "First look"}),
        ):
            made = await self._ask("owner", "/v1/sessions/create", place | fields)
            sessions[name] = made["session_id"]
        ran = await self._run("owner", {"tool_name": "echo", "parameters": {"value": "auto"}}, place)
        return sessions | {"auto": ran["payload"]["session_id"]}

    async def _import(self, session_id: str) -> Json:
        response = await self.api.http.post(
            "/v1/documents/upload",
            params={"casefile_id": self.casefile_id, "filename": _SAMPLE.name},
            content=_SAMPLE.read_bytes(),
            headers=bearer(self.tokens["owner"]),
        )
        upload_id = response.json()["payload"]["upload_id"]
        place = {"session_id": session_id}
        filed = {"tool_name": "document_import", "parameters": {"upload_id": upload_id}}
        ran = await self._run("owner", filed, place)
        query = "subject:invoice has:attachment"
        search = {"tool_name": "document_search", "parameters": {"query": query}}
        found = (await self._run("owner", search, place))["payload"]["outputs"]
        return {
            "event_id": ran["payload"]["event_id"],
            "query": query,
            "found": [[item["document_id"], item["title"]] for item in found["items"]],
        }

    async def _operations(self, sessions: dict[str, str]) -> Json:
        note = {"tool_name": "note_add", "parameters": {"text": "The landlord has not answered."}}
        ended = await self._claimed("owner", note, {"session_id": sessions["shared"]}, "note-of-version-0.1")
        auto = {"tool_name": "echo", "parameters": {"value": ["ä", 1.5, None]}}
        placed = await self._claimed("reader", auto, {"casefile_id": self.casefile_id}, "0b0c7a1e-echo")
        nesting = {"name": "echo", "parameters": {"value": "inside"}}
        nested = await self._run(
            "owner", {"tool_name": "nested", "parameters": nesting}, {"session_id": sessions["closed"]}
        )
        for name, parameters in (("raises", {}), ("returns_bytes", {"size": 300_000})):
            call = {"tool_name": name, "parameters": parameters}
            await self._run("owner", call, {"session_id": sessions["closed"]})
        asked = {"agent_name": "offline-researcher", "prompt": "Find my tax documents from 2024"}
        agent = await self._run("owner", asked, {"session_id": sessions["open"]})
        return {
            "ended": [ended, placed],
            "nested": nested["payload"]["event_id"],
            "agent": {**asked, "answer": agent["payload"]},
        }

    async def _lose_rights(self) -> Json:
        place = {"casefile_id": self.casefile_id}
        await self._run("revoked", {"tool_name": "touch", "parameters": {}}, place)
        reader = {**place, "user_id": self.users["reader"]["user_id"], "role": "viewer"}
        await self._ask("owner", "/v1/permissions/grant", reader)
        gone = {**place, "user_id": self.users["revoked"]["user_id"]}
        await self._ask("owner", "/v1/permissions/revoke", gone)
        refused = await self.api.run(self.tokens["reader"], "touch", **place)
        return {"user": "reader", "operation_name": "touch", "status": refused.status_code}

    async def _left_open(self, session_id: str) -> Json:
        """A tool that runs another, which waits, when the process dies."""
        call = {"tool_name": "nested", "parameters": {"name": "waits"}}
        more = {"session_id": session_id, "mode": "background"}
        claimed = await self._claimed("owner", call, more, "open-at-the-end-of-0.1")
        await self.shop.until_running("waits")
        return claimed

    async def _claimed(self, name: str, operation: Json, more: Json, request_id: str) -> Json:
        """Run with a request id; what was sent, to the byte, and answered."""
        payload = {**more, "operation": _of_type(operation)}
        body = json.dumps({"request_id": request_id, "payload": payload}, ensure_ascii=False)
        headers = {**bearer(self.tokens[name]), "content-type": "application/json"}
        self.clock.step(seconds=20)
        answered = await self.api.http.post(_EXECUTE, content=body.encode(), headers=headers)
        if answered.status_code not in (200, 202):
            raise SystemExit(answered.text)
        return {"user": name, "path": _EXECUTE, "body": body, "answer": answered.json()}

    async def _run(self, name: str, operation: Json, place: Json) -> Json:
        self.clock.step(seconds=20)
        payload = {**place, "operation": _of_type(operation)}
        answered = await self.api.post(_EXECUTE, payload, token=self.tokens[name])
        if answered.status_code != 200:
            raise SystemExit(answered.text)
        return answered.json()

    async def _ask(self, name: str, path: str, payload: Json) -> Json:
        self.clock.step(seconds=20)
        return await self.api.ask(path, payload, token=self.tokens[name])


def _of_type(operation: Json) -> Json:
    return {"operation_type": "agent" if "agent_name" in operation else "tool", **operation}


if __name__ == "__main__":
    main()
