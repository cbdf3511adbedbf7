"""What a repeat is told from: the rule of today, and that of version 1, which stores still hold."""

import hashlib
from dataclasses import replace
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from casekeeper.casefiles.commands import CreateCasefile
from casekeeper.errors import RequestIdReused
from casekeeper.execution.service import Execute
from casekeeper.identity.account_commands import CreateAccount, UpdateAccount
from casekeeper.identity.logouts import LogOut
from casekeeper.journal.commits import Commit
from casekeeper.journal.requests import Ask, Body, Claim, NotFingerprinted
from tests.unit.support import House

NOTE = {"operation_type": "tool", "tool_name": "note_add", "parameters": {"text": "é", "n": 1.5}}


def ask(command: BaseModel) -> Ask:
    return asks(Body.of_command(command))


def asks(body: Body) -> Ask:
    return Ask("sam@example.com", "/v1/casefiles/create", "req_1", body, is_repeatable=True)


def execute(**fields: Any) -> Ask:
    return ask(Execute.model_validate({"casefile_id": "cf_251023_5acf44", "operation": NOTE, **fields}))


def test_the_key_is_made_of_user_route_and_id():
    key = b"sam@example.com\n/v1/casefiles/create\nreq_1"

    assert ask(CreateCasefile(title="A")).key == hashlib.sha256(key).hexdigest()


def test_a_fingerprint_is_the_digest_of_canonical_json_without_defaults():
    sent = (
        '{"casefile_id":"cf_251023_5acf44",'
        '"operation":{"operation_type":"tool","parameters":{"n":1.5,"text":"\\u00e9"},"tool_name":"note_add"}}'
    )

    assert execute().fingerprint == f"2:{hashlib.sha256(sent.encode()).hexdigest()}"


def test_numbers_are_written_as_they_always_were():
    """A library that wrote them otherwise would make another request of each repeat."""
    numbers = "[1e+16,1e-07,0.1,123456789.125,1e+300,-0.0,36893488147419103232]"

    assert Body.of_json(numbers.encode()).digest() == hashlib.sha256(numbers.encode()).hexdigest()


def test_the_order_of_keys_does_not_matter():
    other = {"operation_type": "tool", "parameters": {"n": 1.5, "text": "é"}, "tool_name": "note_add"}

    assert execute(operation=other).fingerprint == execute().fingerprint


def test_a_field_that_a_command_gains_does_not_change_what_was_sent():
    class CreateCasefileLater(BaseModel):
        urgency: int = 3
        tags: list[str] = ["new"]
        title: str

    later = ask(CreateCasefileLater(title="A"))

    assert later.has(ask(CreateCasefile(title="A")).fingerprint)


@pytest.mark.parametrize(
    ("command", "former"),
    [
        (
            CreateCasefile(title="A"),
            b'{"title":"A","description":"","tags":[],"public_role":"none"}',
        ),
        (
            Execute.model_validate({"casefile_id": "cf_251023_5acf44", "operation": NOTE}),
            '{"casefile_id":"cf_251023_5acf44","session_id":null,"operation":{"operation_type":"tool",'
            '"tool_name":"note_add","parameters":{"text":"é","n":1.5}},"mode":"wait","timeout_s":null}'.encode(),
        ),
        (
            CreateAccount(user_id="anna@example.com", password="long enough"),
            b'{"user_id":"anna@example.com","password":"long enough","display_name":"","is_operator":false}',
        ),
        (
            LogOut(),
            b'{"user_id":null,"refresh_token":null,"browser_session":false,"keys":false}',
        ),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_claim_of_version_1_is_found_by_the_same_request_and_by_no_other(
    house: House, command: BaseModel, former: bytes
):
    repeat = ask(command)
    claim = Claim(repeat.key, hashlib.sha256(former).hexdigest(), "evt_1", house.clock(), None)
    await house.commits.commit(Commit(conditions=(claim,), records=(claim,)))

    assert await house.requests.find(repeat) == "evt_1"
    with pytest.raises(RequestIdReused):
        await house.requests.find(replace(repeat, body=Body.of_json(b'"other"')))


async def test_a_nested_call_finds_its_claim_of_version_1_however_old(house: House):
    raw = b'["tool","note_add",{"text":"A","n":1}]'
    nested = Ask("sam@example.com", "nested", "step", Body.of_json(raw), True, ("evt_outer", "step"))
    claim = Claim(nested.key, hashlib.sha256(raw).hexdigest(), "evt_1", house.clock(), None)
    await house.commits.commit(Commit(conditions=(claim,), records=(claim,)))
    house.clock.advance(days=400)

    assert await house.requests.find(nested) == "evt_1"


def test_the_rule_of_a_newer_version_is_not_judged():
    assert ask(CreateCasefile(title="A")).has("3:whatever it means")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            CreateAccount(user_id="anna@example.com", password="long enough"),
            CreateAccount(user_id="anna@example.com", password="another one"),
        ),
        (
            UpdateAccount(user_id="anna@example.com", password="long enough", current_password="a"),
            UpdateAccount(user_id="anna@example.com", password="another one", current_password="b"),
        ),
    ],
    ids=lambda command: type(command).__name__,
)
def test_no_fingerprint_can_be_used_to_guess_a_password(one: BaseModel, other: BaseModel):
    assert ask(one).fingerprint == ask(other).fingerprint


def test_a_marked_field_is_left_out_whatever_it_holds():
    class Told(BaseModel):
        name: str
        secret: Annotated[str | None, NotFingerprinted()] = None

    assert Body.of_command(Told(name="a", secret="b")).digest() == hashlib.sha256(b'{"name":"a"}').hexdigest()
