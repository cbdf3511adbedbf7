"""Real mail through the HTTP door: how fast it is filed, what the server grows by, and what other calls feel of it."""

import email.parser
import email.policy
import io
import json
import os
import sqlite3
import threading
import time
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fakes.corpus import spam_assassin

from benchmarks.figures import Row
from benchmarks.load import Job
from benchmarks.machinery import Api, Load, Running, http, serving
from benchmarks.searching import searching_in

_BATCH = 50


def importing(folder: Path, load: Load) -> list[Row]:
    """Imports SpamAssassin's 6,046 mails, twice, and beside it calls one that reads."""
    mails = list(spam_assassin().values())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number, raw in enumerate(mails):
            archive.writestr(f"{number}.eml", raw)
    floor = _floor(folder / "floor.db", mails)
    with serving("casekeeper", folder / "importing") as ours:
        _unpin(ours.process.pid)
        casefile = _Casefile(ours)
        quiet = casefile.listen(load, 2.0)
        before_mib = ours.rss_mib()
        rate, peak_mib = casefile.fill(packed.getvalue(), len(mails))
        again, _ = casefile.fill(packed.getvalue(), len(mails))
    texts = [raw.decode("ascii", "ignore").partition("\n\n")[2] for raw in mails]
    searches = searching_in(folder / "importing", casefile.casefile_id, texts, 3)
    with serving("casekeeper", folder / "beside") as ours:
        _unpin(ours.process.pid)
        casefile = _Casefile(ours)
        filling = threading.Thread(target=casefile.fill, args=(packed.getvalue(), len(mails)))
        filling.start()
        # By now the upload is read; what is measured are the seconds in which documents are filed.
        time.sleep(0.7)
        busy = casefile.listen(load, 2.0)
        filling.join()
    return [
        Row("import, floor", f"{floor:,.0f} mails/s  one process: parsed by the standard library, bare FTS5"),
        Row(
            "import",
            f"{rate:,.0f} mails/s",
            rate / floor,
            against="floor; mails/s",
            aim=1500,
            measured=rate,
        ),
        Row("import, once more", f"{again:,.0f} mails/s, none of them added"),
        Row(
            "import, memory",
            f"+{peak_mib - before_mib:.0f} MiB at its most",
            against="MiB",
            aim=100,
            at_least=False,
            measured=peak_mib - before_mib,
        ),
        Row(
            "get beside an import",
            f"p99 {busy:.1f} ms, {quiet:.1f} ms without",
            busy / quiet,
            against="p99",
            aim=2,
            at_least=False,
        ),
        *searches,
    ]


class _Casefile:
    """A casefile on a server, to be filled."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self._api = Api(server.port)
        self._api.log_in(server.said["user"], server.said["password"], [])
        self.casefile_id = self._api.call("/v1/casefiles/create", {"title": "Import"})["casefile_id"]
        self._api.log_in(server.said["user"], server.said["password"], [self.casefile_id])
        made = self._api.call("/v1/sessions/create", {"casefile_id": self.casefile_id})
        wanted = {"session_id": made["session_id"], "events": {"limit": 10}}
        self._get = http(server.port, "/v1/sessions/get", wanted, self._api.token)

    def listen(self, load: Load, seconds: float) -> float:
        """The p99 of reading a session, four clients at once, in milliseconds."""
        job = Job(self._server.port, [self._get], 4, seconds, label="get beside an import")
        return load.run(job).percentile_ms(0.99)

    def fill(self, packed: bytes, count: int) -> tuple[float, float]:
        """Mails a second, and the most memory that the server held meanwhile."""
        path = f"/v1/documents/upload?casefile_id={self.casefile_id}&filename=corpus.zip"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._server.port}{path}",
            packed,
            {"Authorization": f"Bearer {self._api.token}", "Content-Type": "application/octet-stream"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            upload_id = json.load(answer)["payload"]["upload_id"]
        operation = {
            "operation_type": "tool",
            "tool_name": "document_import",
            "parameters": {"upload_id": upload_id},
        }
        peak, ended = [0.0], threading.Event()
        watching = threading.Thread(target=self._watch, args=(peak, ended))
        watching.start()
        began = time.perf_counter()
        done = self._api.call(
            "/v1/sessions/execute", {"casefile_id": self.casefile_id, "operation": operation}
        )
        took = time.perf_counter() - began
        ended.set()
        watching.join()
        assert done["outputs"]["read"] >= count, done
        return count / took, peak[0]

    def _watch(self, peak: list[float], ended: threading.Event) -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], self._server.rss_mib())


def _unpin(pid: int) -> None:
    """Let the server use every processor: an import works with two processes."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), range(os.cpu_count() or 1))


def _floor(path: Path, mails: Sequence[bytes]) -> float:
    """Mails a second, by hand: parsed, their text put into full-text search, a durable commit for every fifty."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE raw (data BLOB)")
    connection.execute("CREATE VIRTUAL TABLE words USING fts5(title, people, body)")
    parser = email.parser.BytesParser(policy=email.policy.compat32)
    began = time.perf_counter()
    for start in range(0, len(mails), _BATCH):
        connection.execute("BEGIN IMMEDIATE")
        for raw in mails[start : start + _BATCH]:
            connection.execute("INSERT INTO raw VALUES (?)", (raw,))
            connection.execute("INSERT INTO words VALUES (?, ?, ?)", _words(parser.parsebytes(raw)))
        connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    return len(mails) / took


def _words(mail: Any) -> tuple[str, str, str]:
    texts: list[str] = []
    for part in mail.walk():
        if part.get_content_maintype() == "text":
            texts.append((part.get_payload(decode=True) or b"").decode("utf-8", "replace"))
    return str(mail["Subject"] or ""), f"{mail['From'] or ''} {mail['To'] or ''}", "\n".join(texts)
