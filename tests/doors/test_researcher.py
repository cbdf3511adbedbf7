"""`offline-researcher` on the demo's mailbox: what it is asked, and the documents with which it must answer."""

import re

import pytest

from tests.doors.commands import SAMPLE
from tests.support import Api, House, bearer

QUESTIONS = {
    "Find my tax documents from 2024": [
        "Tax assessment notice of 14 May 2024",
        "Wage statement 2024 for your tax return",
        "Donation receipt 2024 (for your tax return)",
    ],
    "tax notice before 2024": ["Tax assessment notice of 15 December 2023"],
    "mails from Nora about hedgehogs": ["Next book? Three hedgehogs", "Re: Next book? Three hedgehogs"],
    "When is the flight to Lisbon in September?": ["Your itinerary: Basel to Lisbon, 10 September"],
    "orders from orders@paper-ink.example.com": [
        "Invoice for order 57740",
        "Your order 55012 has been shipped",
    ],
    "donation receipt 2024": ["Donation receipt 2024 (for your tax return)"],
    "Heizung Schlüssel": ["Atelier: Schlüssel und Heizung"],
    "has:attachment invoice": [
        "Invoice 2024-001: cover for The Lighthouse Keeper",
        "Invoice 2024-002: illustration for issue 3",
        "Invoice 2024-003: Three hedgehogs, sketches",
        "Invoice 2024-004: Three hedgehogs, final artwork",
    ],
    'subject:"Next book" from:nora': ["Next book? Three hedgehogs", "Re: Next book? Three hedgehogs"],
    "What did I file as label:travel ?": [
        "Your booking to Malmö on 15 March",
        "Your itinerary: Basel to Lisbon, 10 September",
        "Reserva confirmada / booking confirmed",
    ],
    "label:tax-2024 wage": ["Wage statement 2024 for your tax return"],
    "filename:pdf from:mira after:2024/10/01": ["Invoice 2024-004: Three hedgehogs, final artwork"],
}


@pytest.mark.parametrize("question", QUESTIONS)
async def test_it_answers_with_the_right_documents(api: Api, house: House, question: str) -> None:
    path = f"/v1/documents/upload?casefile_id={house.casefile_id}&filename=sample.mbox"
    kept = await api.http.post(path, content=SAMPLE.read_bytes(), headers=bearer(house["editor"]))
    filed = {"upload_id": kept.json()["payload"]["upload_id"]}
    await api.run(house["editor"], "document_import", filed, casefile_id=house.casefile_id)

    operation = {"operation_type": "agent", "agent_name": "offline-researcher", "prompt": question}
    payload = {"casefile_id": house.casefile_id, "operation": operation}
    ran = await api.ask("/v1/sessions/execute", payload, token=house["viewer"])

    listed = {"casefile_id": house.casefile_id, "limit": 100}
    documents = (await api.ask("/v1/documents/list", listed, token=house["viewer"]))["items"]
    title_of = {document["document_id"]: document["title"] for document in documents}
    found = {title_of[one] for one in re.findall(r"\[(doc_\w+)\]", ran["outputs"]["response"])}
    assert found == set(QUESTIONS[question])
