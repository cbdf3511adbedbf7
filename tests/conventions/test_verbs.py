"""The table of verbs says what is there: methods, models, stored keys, and who may call."""

import inspect
import subprocess
import sys
from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel

from casekeeper.client import Casekeeper
from casekeeper.identity.principal import Principal
from casekeeper.journal.requests import Ask, NotFingerprinted
from casekeeper.server import Server
from casekeeper.verbs import VERBS
from casekeeper.verbs.verb import Verb
from tests.doors import access_table

SDK = Casekeeper("http://127.0.0.1:1", token="t")
CALLED = [verb for verb in VERBS.values() if verb.calls and not verb.takes_bytes]
CLAIMED = [verb for verb in VERBS.values() if verb.claims]

KEYS = {
    "/v1/accounts/create",
    "/v1/accounts/deactivate",
    "/v1/accounts/update",
    "/v1/auth/logout",
    "/v1/casefiles/create",
    "/v1/casefiles/delete",
    "/v1/casefiles/update",
    "/v1/documents/delete",
    "/v1/documents/upload",
    "/v1/keys/create",
    "/v1/keys/revoke",
    "/v1/permissions/grant",
    "/v1/permissions/revoke",
    "/v1/permissions/transfer",
    "/v1/sessions/close",
    "/v1/sessions/create",
    "/v1/sessions/execute",
}
"""What is in the stored keys of requests. This list only grows: whoever loses a line of it lets work be done twice."""

ROWS = {
    "account": access_table.EVERYBODY,
    "nothing": access_table.EVERYBODY,
    "oneself": access_table.EVERYBODY,
    "operator": access_table.OPERATORS,
    "reader": access_table.MEMBERS,
    "viewer": access_table.MEMBERS,
    "session": access_table.MEMBERS,
    "operation": access_table.MEMBERS,
    "editor": access_table.EDITORS,
    "admin": access_table.ADMINS,
    "owner": access_table.OWNERS,
}
"""How the callers of the access table fare with a verb that needs this."""


def named(verb: Verb) -> str:
    return verb.name


def method_of(verb: Verb) -> Any:
    """The method that does it, found by the types of the server's parts."""
    *parts, name = verb.calls.split(".")
    owner: Any = Server
    for part in parts:
        owner = get_type_hints(owner)[part]
    return getattr(owner, name)


@pytest.mark.parametrize("verb", CALLED, ids=named)
def test_a_verb_calls_a_method_that_takes_its_command_and_gives_its_result(verb: Verb):
    method = method_of(verb)
    hints = get_type_hints(method)
    needed = [
        hints[name]
        for name, parameter in inspect.signature(method).parameters.items()
        if name != "self" and parameter.default is parameter.empty
    ]
    result = verb.result_type()

    assert needed == [
        *(() if verb.is_open else (Principal,)),
        verb.command_type(),
        *((Ask,) if verb.claims else ()),
    ]
    assert hints["return"] == (tuple[result, bool] if verb.claims else result)


@pytest.mark.parametrize("verb", [v for v in VERBS.values() if v.may_wait], ids=named)
def test_what_may_wait_says_whether_it_has_ended(verb: Verb):
    assert {"status", "error"} <= get_type_hints(verb.result_type()).keys()


def test_a_verb_is_found_by_its_name_and_has_a_result():
    assert all(name == verb.name for name, verb in VERBS.items())
    assert [v.name for v in VERBS.values() if bool(v.result) is bool(v.page_of)] == []


def test_the_stored_keys_of_requests_stay_what_they_are():
    assert {verb.claims for verb in CLAIMED} == KEYS
    assert len(CLAIMED) == len(KEYS)


@pytest.mark.parametrize("verb", [v for v in CLAIMED if v.command], ids=named)
def test_no_fingerprint_covers_a_secret(verb: Verb):
    command: type[BaseModel] = verb.command_type()
    secret = {
        name for name in command.model_fields if any(word in name for word in ("password", "secret", "token"))
    }
    masked = {
        name
        for name, field in command.model_fields.items()
        if "SecretStr" in str(field.annotation)
        or any(isinstance(mark, NotFingerprinted) for mark in field.metadata)
    }

    assert secret <= masked


@pytest.mark.parametrize("verb", VERBS.values(), ids=named)
def test_the_access_table_tries_what_the_verb_needs(verb: Verb):
    rows = [
        row
        for case in access_table.CASES
        if case.route == f"POST {verb.path}"
        for target, row in case.rows.items()
        if target in ("own", "shared", "any")
    ]

    assert ROWS[verb.needs] in rows


OTHERWISE = {
    "keys/list": "list[ApiKey]",
    "events/query": "Page[ExecutionEvent]",
    "sessions/execute": "Result",
    "operations/get": "Result",
    "operations/cancel": "Result",
}
"""What the SDK makes of a result."""

WITHOUT_METHOD = {
    "auth/token": "the SDK logs in by itself",
    "auth/refresh": "and renews its token",
    "auth/session": "cookies are for browsers",
    "auth/logout": "`accounts.log_out`",
}
"""What is no method of the SDK under its own name; `call` takes any verb."""


def test_the_methods_of_the_sdk_give_what_the_table_says():
    told: dict[str, str] = {}
    meant: dict[str, str] = {}
    for verb in VERBS.values():
        if verb.name not in WITHOUT_METHOD:
            noun, _, name = verb.name.partition("/")
            method = getattr(getattr(SDK, noun), name)
            result = (verb.page_of or verb.result).partition(":")[2]
            meant[verb.name] = OTHERWISE.get(verb.name, f"Page[{result}]" if verb.page_of else result)
            told[verb.name] = inspect.get_annotations(method)["return"]

    assert told == meant


def test_importing_the_table_loads_neither_models_nor_rooms():
    program = (
        "import sys, casekeeper.verbs;"
        "print(sorted({'.'.join(m.split('.')[:2]) for m in sys.modules"
        " if m.partition('.')[0] in ('pydantic', 'fastapi', 'casekeeper')}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "['casekeeper', 'casekeeper.values', 'casekeeper.verbs']\n"
