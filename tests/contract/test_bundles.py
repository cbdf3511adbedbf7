"""A casefile moves from every store into every store as it is: the same chains, documents, grants and people."""

import io
import json
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest

from casekeeper.acl import Role
from casekeeper.bundles.archive import ArchiveWriter, BundleUnfit, members
from casekeeper.bundles.exporting import Exporting
from casekeeper.bundles.importing import Imported, Importing
from casekeeper.bundles.integrity import judge, must_be_intact
from casekeeper.casefiles.casefile import DeleteCasefile, OpenRecordSession
from casekeeper.errors import CasefileExists, CasefileNotFound, StoreUnavailable
from casekeeper.execution.payloads import Payloads
from casekeeper.identity.accounts import Account, PutAccount, StoredAccount
from casekeeper.journal.adoption import ChainEndsAt, ChainHasGoneOn
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind, Sealed
from casekeeper.sessions.recording import Recording
from casekeeper.sessions.session import EndSession, PutConversation, SessionFilter
from casekeeper.storage.opening import open_storage
from casekeeper.storage.store import Storage
from tests.contract.conftest import Opening
from tests.contract.shelf import GUEST, LATER, NOW, OWNER, Shelf

OPERATOR = Account(
    user_id="operator@localhost", is_operator=True, created_at=NOW, pseudonym="usr_00000000000000aa"
)
LARGE = b"x" * 400_000


@asynccontextmanager
async def another(directory: Path) -> AsyncGenerator[Storage]:
    """An embedded store with an operator and nobody else."""
    async with open_storage("", directory, lambda _: None) as storage:
        await storage.commits.commit(Commit(records=(PutAccount(StoredAccount(OPERATOR, None)),)))
        yield storage


async def fill(storage: Storage) -> Shelf:
    """A casefile with everything that a casefile can have."""
    shelf = await Shelf.filled(storage)
    casefile = await storage.casefiles.casefile(shelf.casefile_id)
    assert casefile is not None
    assert casefile.record_session_id is not None
    record = OpenRecordSession(casefile.record_session_id, shelf.casefile_id, OWNER, NOW)
    created = shelf.fact(Kind.CASEFILE_CREATED, casefile.record_session_id)
    await shelf.commit(Commit((created,), (), (record,)))
    await shelf.grant(GUEST, Role.EDITOR, expires_at=LATER)
    await shelf.operation("noop")
    await shelf.operation("failing", Kind.FAILED)
    large = await Payloads(storage.blobs).inputs(shelf.casefile_id, {"text": "ß" * 300_000})
    started = replace(shelf.started("large"), payload=large)
    [sealed] = await shelf.commit(shelf.opening(started))
    await shelf.commit(shelf.ending(started, sealed.seq))
    digest = sha256(b"remembered").hexdigest()
    await storage.blobs.put(shelf.casefile_id, digest, b"remembered")
    asked = shelf.started("agent")
    [sealed] = await shelf.commit(shelf.opening(asked))
    ending = shelf.ending(asked, sealed.seq)
    put = PutConversation(shelf.session_id, asked.event_id, digest)
    told = replace(ending.facts[0], conversation=digest)
    await shelf.commit(Commit((told,), ending.conditions, (*ending.records, put)))
    closed = await shelf.session(user_id=GUEST, title="Zoë's", metadata={"a": [1, None, {"b": 2.5}]})
    await shelf.commit(
        Commit((shelf.fact(Kind.CLOSED, closed.session_id),), (), (EndSession(closed.session_id, LATER),))
    )
    small = shelf.document("Grüße", kind="note", sha256=sha256("Grüße".encode()).hexdigest(), title="Kurz")
    exact = small.document.model_copy(update={"size": len("Grüße".encode())})
    name = sha256(LARGE).hexdigest()
    big = replace(shelf.document("large", sha256=name), raw=None)
    await storage.blobs.put(shelf.casefile_id, big.document.document_id, LARGE)
    big = replace(big, document=big.document.model_copy(update={"size": len(LARGE)}))
    await shelf.commit(Commit(records=(replace(small, document=exact), big)))
    return shelf


@dataclass(frozen=True)
class Seen:
    """What a store shows of a casefile."""

    lines: dict[str, list[bytes]]
    sessions: dict[str, Any]
    documents: list[Any]
    raws: list[bytes]


async def seen(storage: Storage, casefile_id: str) -> Seen:
    """Everything that a store shows of a casefile."""
    casefile = await storage.casefiles.casefile(casefile_id)
    assert casefile is not None
    recording = Recording(storage.events, storage.blobs, cast(Any, None))
    sessions = list(
        await storage.sessions.sessions_seen_by(
            casefile.owner, LATER, SessionFilter(casefile_id=casefile_id), None, 100
        )
    )
    own = await storage.sessions.session(casefile.record_session_id or "")
    assert own is not None
    ids = [own.session_id, *(s.session_id for s in sessions)]
    lines = {i: [line async for line in recording.of_session(casefile_id, i)] for i in ids}
    summaries = await storage.documents.documents(casefile_id, None, None, 100)
    documents = [await storage.documents.document(casefile_id, d.document_id) for d in summaries]
    raws = [
        await storage.documents.raw(casefile_id, d.document_id)
        or await storage.blobs.get(casefile_id, d.document_id)
        or b""
        for d in summaries
    ]
    totals = {i: sorted(map(repr, await storage.sessions.totals(i))) for i in ids}
    kept = {s.session_id: (replace(s, user_id=""), totals[s.session_id]) for s in sessions}
    return Seen(lines, kept, documents, raws)


async def exported(storage: Storage, casefile_id: str) -> io.BytesIO:
    """The casefile's bundle."""
    file = io.BytesIO()
    caller = await storage.accounts.account(OWNER)
    assert caller is not None
    await Exporting(storage, lambda: LATER).write(casefile_id, caller.account, file)
    file.seek(0)
    return file


async def taken(storage: Storage, bundle: io.BytesIO, **mapped: str) -> Imported:
    """Take a bundle in."""
    bundle.seek(0)
    return await Importing(storage, lambda: LATER).take(bundle, OPERATOR, mapped)


async def test_a_casefile_arrives_as_it_was(storage: Storage, tmp_path: Path) -> None:
    shelf = await fill(storage)
    bundle = await exported(storage, shelf.casefile_id)
    before = await seen(storage, shelf.casefile_id)
    async with another(tmp_path / "other") as target:
        done = await taken(target, bundle)
        assert done.is_new
        assert set(done.new_accounts) == {OWNER, GUEST}
        after = await seen(target, shelf.casefile_id)
        own = next(iter(before.lines))
        # The record goes on where it was: byte for byte the same, and then the fact that it came here.
        *taken_over, last = after.lines.pop(own)
        assert taken_over == before.lines.pop(own)
        assert b'"kind":"imported"' in last
        assert after == before
        assert any(len(line) > 300_000 for lines in after.lines.values() for line in lines)
        assert await target.events.conversation(shelf.session_id) == sha256(b"remembered").hexdigest()
        grants = {
            g.user_id: (g.role, g.expires_at)
            for g in await target.casefiles.grants(shelf.casefile_id, "", 10)
        }
        assert grants == {OWNER: (Role.OWNER, None), GUEST: (Role.EDITOR, LATER)}
        owner = await target.accounts.account(OWNER)
        assert owner is not None
        assert not owner.account.is_active
        assert owner.account.pseudonym == shelf.pseudonyms[OWNER]
        assert owner.password_hash is None


async def test_a_casefile_arrives_in_every_store(storage: Storage, tmp_path: Path) -> None:
    async with another(tmp_path / "source") as source:
        shelf = await fill(source)
        bundle = await exported(source, shelf.casefile_id)
        before = await seen(source, shelf.casefile_id)
    await storage.commits.commit(Commit(records=(PutAccount(StoredAccount(OPERATOR, None)),)))
    await taken(storage, bundle)
    after = await seen(storage, shelf.casefile_id)
    assert after.sessions == before.sessions
    assert (after.documents, after.raws) == (before.documents, before.raws)
    for session_id, lines in before.lines.items():
        assert after.lines[session_id][: len(lines)] == lines
    # And on: what came in is exported as it is, with what has happened since.
    again = await exported(storage, shelf.casefile_id)
    must_be_intact(judge(again))


async def test_a_repeat_does_nothing_and_another_record_is_refused(storage: Storage, tmp_path: Path) -> None:
    shelf = await fill(storage)
    bundle = await exported(storage, shelf.casefile_id)
    # The store where it comes from has all of it, and whatever came after.
    assert not (await taken(storage, bundle)).is_new
    await shelf.operation("later")
    assert not (await taken(storage, bundle)).is_new
    async with another(tmp_path / "other") as target:
        assert (await taken(target, bundle)).is_new
        assert not (await taken(target, bundle)).is_new
        newer = await exported(storage, shelf.casefile_id)
        with pytest.raises(CasefileExists, match="its record is another"):
            await taken(target, newer)


async def test_what_was_deleted_does_not_come_back(storage: Storage) -> None:
    shelf = await fill(storage)
    bundle = await exported(storage, shelf.casefile_id)
    await shelf.commit(Commit(records=(DeleteCasefile(shelf.casefile_id, LATER),)))
    with pytest.raises(CasefileExists, match="There is, or was"):
        await taken(storage, bundle)
    with pytest.raises(CasefileNotFound):
        await Exporting(storage, lambda: LATER).write(shelf.casefile_id, OPERATOR, io.BytesIO())


async def test_people_are_who_they_are_said_to_be(storage: Storage, tmp_path: Path) -> None:
    shelf = await fill(storage)
    bundle = await exported(storage, shelf.casefile_id)
    async with another(tmp_path / "other") as target:
        with pytest.raises(BundleUnfit, match=r"does not name stranger@example\.com"):
            await taken(target, bundle, **{"stranger@example.com": OPERATOR.user_id})
        with pytest.raises(BundleUnfit, match=r"no account nobody@example\.com"):
            await taken(target, bundle, **{OWNER: "nobody@example.com"})
        anna = Account(user_id="anna@example.com", created_at=NOW, pseudonym="usr_00000000000000bb")
        guest = Account(user_id=GUEST, created_at=NOW, pseudonym="usr_00000000000000cc")
        accounts = [PutAccount(StoredAccount(account, None)) for account in (anna, guest)]
        await target.commits.commit(Commit(records=accounts))
        done = await taken(target, bundle, **{OWNER: anna.user_id})
        casefile = await target.casefiles.casefile(shelf.casefile_id)
        assert casefile is not None
        assert casefile.owner == anna.user_id
        assert {g.user_id for g in await target.casefiles.grants(shelf.casefile_id, "", 10)} == {
            anna.user_id,
            GUEST,
        }
        # The record names people by the pseudonyms of another store; they are kept, so that it tells names.
        kept = {f"{shelf.pseudonyms[user_id]}@imported" for user_id in (OWNER, GUEST)}
        assert set(done.new_accounts) == kept
        there = Shelf(target, shelf.casefile_id, shelf.session_id)
        facts = await there.facts()
        assert {fact.actor_user_id for fact in facts} == {f"{shelf.pseudonyms[OWNER]}@imported"}


async def test_two_people_who_become_one_have_the_higher_role(storage: Storage, tmp_path: Path) -> None:
    shelf = await fill(storage)
    bundle = await exported(storage, shelf.casefile_id)
    async with another(tmp_path / "other") as target:
        await taken(target, bundle, **{OWNER: OPERATOR.user_id, GUEST: OPERATOR.user_id})
        [grant] = await target.casefiles.grants(shelf.casefile_id, "", 10)
        assert (grant.user_id, grant.role) == (OPERATOR.user_id, Role.OWNER)


class BreaksOff:
    """A store that stops to take commits after some."""

    is_writable = True

    def __init__(self, storage: Storage, commits: int) -> None:
        self._storage = storage
        self.left = commits

    async def commit(self, commit: Commit) -> Sequence[Sealed]:
        """As long as it does."""
        if self.left <= 0:
            raise StoreUnavailable("The disk is full.")
        self.left -= 1
        return await self._storage.commits.commit(commit)


async def test_an_import_that_breaks_off_anywhere_shows_nothing_and_is_completed_by_the_next(
    opening: Opening, tmp_path: Path
) -> None:
    async with another(tmp_path / "source") as source:
        shelf = await fill(source)
        bundle = await exported(source, shelf.casefile_id)
        before = await seen(source, shelf.casefile_id)
    async with opening() as target:
        await target.commits.commit(Commit(records=(PutAccount(StoredAccount(OPERATOR, None)),)))
        commits, is_whole = 0, False
        while not is_whole:
            broken = replace(target, commits=BreaksOff(target, commits))
            try:
                await taken(broken, bundle)
                is_whole = True
            except StoreUnavailable:
                assert await target.casefiles.casefile(shelf.casefile_id) is None
                assert await target.sessions.session(shelf.session_id) is None
                assert await target.accounts.account(OWNER) is None
                assert await target.casefiles.access(OWNER, shelf.casefile_id) is None
                seen_by = SessionFilter(casefile_id=shelf.casefile_id)
                assert not await target.sessions.sessions_seen_by(OWNER, LATER, seen_by, None, 10)
                commits += 1
        assert commits > 5
        after = await seen(target, shelf.casefile_id)
        assert after.documents == before.documents
        assert after.sessions == before.sessions
        for session_id, lines in before.lines.items():
            assert after.lines[session_id][: len(lines)] == lines


async def test_what_is_left_of_another_import_is_not_mixed_in(storage: Storage, tmp_path: Path) -> None:
    await storage.commits.commit(Commit(records=(PutAccount(StoredAccount(OPERATOR, None)),)))
    async with another(tmp_path / "one") as one:
        shelf = await fill(one)
        bundle = await exported(one, shelf.casefile_id)
        await shelf.operation("later")
        newer = await exported(one, shelf.casefile_id)
    broken = replace(storage, commits=BreaksOff(storage, 8))
    with pytest.raises(StoreUnavailable):
        await taken(broken, newer)
    # The older one is no longer what is there; the newer one is.
    with pytest.raises(BundleUnfit):
        await taken(storage, bundle)
    assert await storage.casefiles.casefile(shelf.casefile_id) is None
    assert (await taken(storage, newer)).is_new


async def test_a_chain_is_adopted_only_where_it_goes_on(storage: Storage) -> None:
    shelf = await fill(storage)
    wrong = ChainEndsAt(shelf.casefile_id, shelf.session_id, 1, secrets.token_bytes(32))
    with pytest.raises(ChainHasGoneOn):
        await storage.commits.commit(Commit(conditions=(wrong,)))


async def test_an_operation_that_runs_is_not_exported(storage: Storage) -> None:
    shelf = await fill(storage)
    await shelf.commit(shelf.opening(shelf.started()))
    with pytest.raises(BundleUnfit, match="have not ended"):
        must_be_intact(judge(await exported(storage, shelf.casefile_id)))


async def test_an_erased_payload_stays_erased(storage: Storage, tmp_path: Path) -> None:
    shelf = await fill(storage)
    bundle = await exported(storage, shelf.casefile_id)
    erased = erase(bundle.getvalue(), f"records/{shelf.session_id}.jsonl")
    async with another(tmp_path / "other") as target:
        await taken(target, erased)
        after = await seen(target, shelf.casefile_id)
        assert all(b'"payload":null' in line for line in after.lines[shelf.session_id])


def erase(bundle: bytes, name: str) -> io.BytesIO:
    """The bundle with the payloads of one session erased."""
    archive, file = ArchiveWriter(made := io.BytesIO()), io.BytesIO(bundle)
    for member in members(file):
        content = member.content()
        if member.name == name:
            lines = [json.loads(line) | {"salt": None, "payload": None} for line in content.splitlines()]
            content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        archive.add(member.name, len(content), (content,))
    archive.finish()
    return made
