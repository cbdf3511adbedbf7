"""A casefile, a mailbox, a tool, and the record of it.

python examples/quickstart.py                       on a fresh server inside this process
python examples/quickstart.py URL USER PASSWORD     on a running one
"""

import asyncio
import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

import httpx2

from casekeeper.asgi import create_app
from casekeeper.client import ApiError, Casekeeper
from casekeeper.server import open_server
from casekeeper.settings import Settings


async def work(ck: Casekeeper) -> None:
    casefile = await ck.casefiles.create("Tax 2024")
    with as_file(files("casekeeper.reading") / "sample.mbox") as mailbox:
        filed = await ck.documents.import_file(casefile.casefile_id, mailbox)
    print(filed.raise_for_failure().outputs["added"], "documents filed")

    found = await ck.run_tool(casefile.casefile_id, "gmail_search", query="invoice from:foxglove")
    for mail in found.raise_for_failure().outputs["messages"]:
        print(mail["sent_at"], mail["title"])

    async for event in ck.events.each(casefile_id=casefile.casefile_id, order="asc", view="operations"):
        print(event.seq, event.operation_name, event.kind, event.duration_ms, "ms")
    try:
        await ck.run_tool(casefile.casefile_id, "gmail_search", query="invoice", max_results=0)
    except ApiError as refusal:
        print("refused:", refusal.code)


async def on_a_fresh_server() -> None:
    with tempfile.TemporaryDirectory() as data:
        async with open_server(Settings(data=Path(data))) as server:
            app, login = create_app(), server.first_login
            app.state.server = server
            assert login is not None
            transport = httpx2.ASGITransport(app=app)
            async with Casekeeper(
                "http://quickstart", user_id=login.user_id, password=login.password, transport=transport
            ) as ck:
                await work(ck)


async def on_a_running_server(url: str, user_id: str, password: str) -> None:
    async with Casekeeper(url, user_id=user_id, password=password) as ck:
        await work(ck)


asyncio.run(on_a_running_server(*sys.argv[1:]) if sys.argv[1:] else on_a_fresh_server())
