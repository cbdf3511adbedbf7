"""Search inside the process: in mails of chance with queries of every kind, and in real ones with what people ask."""

import asyncio
import hashlib
import random
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.figures import Row
from casekeeper.documents.document import AddDocument, Document
from casekeeper.documents.query_parser import parse_query
from casekeeper.documents.search import Order, PageStart
from casekeeper.ids import new_document_id
from casekeeper.journal.commits import Commit
from casekeeper.storage.sqlite.opening import open_embedded
from casekeeper.storage.store import Storage

MAILS = 6_000
_WORDS = [f"word{number}" for number in range(20_000)]
# Zipf's law: the n-th most frequent word of a language is about 1/n as frequent as the first.
_WEIGHTS = [1 / (number + 1) for number in range(len(_WORDS))]
_CASEFILE = "cf_261126_abc123"
_START = datetime(2020, 1, 1, tzinfo=UTC)
QUERIES = [
    *(
        "word0",
        "word3 word9",
        "word40",
        "word700",
        "word15000",
        '"word0 word1"',
        "subject:word5",
        "from:person7",
    ),
    *(
        "word2 -word3",
        "word4 OR word8",
        "{word60 word70} after:2021/06/01",
        "has:attachment word1",
        "label:work",
    ),
    *(
        "word1 AROUND 5 word2",
        "to:person3 word12",
        "filename:pdf",
        "larger:3K word30",
        "before:2021/01/01 word6",
    ),
    *("", "word0 word1 word2 word3 word4", "-(word0 OR larger:2K)", "from:person1 subject:word2"),
]


def searching(data: Path, rounds: int) -> list[Row]:
    """How long a page of 20 hits takes in mails of chance, over all queries and orders."""

    async def measured() -> list[float]:
        data.mkdir()
        async with open_embedded(data, lambda _: None) as storage:
            await _fill(storage)
            return await _timed(storage, _CASEFILE, QUERIES, rounds)

    return _rows("search", f"in {MAILS:,} mails of chance", asyncio.run(measured()))


def searching_in(data: Path, casefile_id: str, texts: Sequence[str], rounds: int) -> list[Row]:
    """The same in what a server has filed, with the words of some of its `texts` as queries."""

    async def measured() -> list[float]:
        async with open_embedded(data, lambda _: None) as storage:
            return await _timed(storage, casefile_id, _questions(texts), rounds)

    return _rows("search, corpus", "in what was imported", asyncio.run(measured()))


def _questions(texts: Sequence[str]) -> list[str]:
    """What people ask: a word, two, a phrase, a word and a filter; the words as frequent as in the texts."""
    chance = random.Random(7)
    questions: list[str] = []
    while len(questions) < 60:
        words = [word.lower() for word in re.findall(r"[A-Za-z]{3,12}", chance.choice(texts))]
        if len(words) < 10:
            continue
        at = chance.randrange(len(words) - 2)
        one, other = chance.sample(words, 2)
        questions += [
            one,
            f"{one} {other}",
            f'"{words[at]} {words[at + 1]}"',
            f"subject:{one}",
            f"{one} OR {other} after:2002/09/01",
            f"has:attachment {one}",
        ]
    return questions


async def _timed(storage: Storage, casefile_id: str, queries: Sequence[str], rounds: int) -> list[float]:
    took: list[float] = []
    for round_ in range(rounds + 1):
        for query in queries:
            for order in Order:
                began = time.perf_counter()
                await storage.search.search(casefile_id, parse_query(query, _START), order, PageStart(), 20)
                if round_:
                    took.append((time.perf_counter() - began) * 1000)
    return took


def _rows(name: str, where: str, took_ms: list[float]) -> list[Row]:
    took_ms.sort()
    p50, p99 = (took_ms[int(len(took_ms) * share)] for share in (0.5, 0.99))
    text = f"{len(took_ms)} searches {where}"
    return [
        Row(f"{name}, p50", f"{p50:.2f} ms  {text}", against="ms", aim=5, at_least=False, measured=p50),
        Row(f"{name}, p99", f"{p99:.2f} ms", against="ms", aim=25, at_least=False, measured=p99),
    ]


async def _fill(storage: Storage) -> None:
    chance = random.Random(7)
    for start in range(0, MAILS, 200):
        records = [_mail(chance, number) for number in range(start, start + 200)]
        await storage.commits.commit(Commit(records=tuple(records)))


def _mail(chance: random.Random, number: int) -> AddDocument:
    text = " ".join(chance.choices(_WORDS, _WEIGHTS, k=chance.randint(30, 700)))
    document = Document(
        document_id=new_document_id(_START),
        casefile_id=_CASEFILE,
        kind="mail",
        title=" ".join(chance.choices(_WORDS, _WEIGHTS, k=6)),
        sender=f"person{chance.randint(1, 50)}@example.com",
        recipients=[f"person{chance.randint(1, 50)}@example.com"],
        sent_at=_START + timedelta(hours=number * 3),
        labels=chance.sample(["Inbox", "Work", "Home", "Tax"], 2),
        filenames=["scan.pdf"] if number % 7 == 0 else [],
        size=len(text),
        sha256=hashlib.sha256(f"{number}".encode()).hexdigest(),
        created_at=_START,
        created_by="owner@example.com",
        event_id="evt_1",
        source="bench.mbox",
        text=text,
    )
    return AddDocument(document, b"")
