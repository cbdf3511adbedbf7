"""Writes those pages of `docs/` that follow from the code; with `--check`, says which are out of step.

What the code cannot say (what a kind of fact means, who may open a stream) is in the tables below; a kind or a
route that a table lacks stops the run.
"""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

import casekeeper
from casekeeper import errors
from casekeeper.doors.http.app import build_app
from casekeeper.journal.events import TERMINAL, Kind
from casekeeper.settings import CONFIG, PREFIX, Settings
from casekeeper.verbs import VERBS
from casekeeper.verbs.verb import Need, Verb

DOCS = Path(__file__).parents[1] / "docs"
NOTE = "<!-- Written by scripts/generate_docs.py; `make format` renews it. -->\n"

KINDS = {
    Kind.STARTED: "An operation was let in and begins. Its payload holds the inputs.",
    Kind.SUCCEEDED: "It ended with outputs.",
    Kind.FAILED: "It ended with an error: the tool raised, a model was down, an output was too large.",
    Kind.CANCELLED: "It was stopped: on request, because its client went away, or because a right was taken away.",
    Kind.TIMED_OUT: "Its time ran out.",
    Kind.INTERRUPTED: "The process that ran it stopped or was lost, and no other could go on with it. It is not run again by itself.",
    Kind.DENIED: "A member was refused, or an operation lost its rights midway.",
    Kind.OPENED: "The session begins.",
    Kind.CLOSED: "The session ends.",
    Kind.CASEFILE_CREATED: "The casefile begins.",
    Kind.CASEFILE_UPDATED: "Title, description, tags, public role or status changed.",
    Kind.CASEFILE_ARCHIVED: "The casefile can be read only from now on.",
    Kind.CASEFILE_DELETED: "The casefile is gone for everybody; its contents are erased later.",
    Kind.GRANTED: "A user got a role.",
    Kind.REVOKED: "A user's role was taken away, or they left.",
    Kind.ROLE_CHANGED: "A user who had a role got another, or another end of it.",
    Kind.EXPIRED: "A role's time had passed. Its end needs no fact: it is judged on every use.",
    Kind.TRANSFERRED: "The casefile has another owner; the former one is admin.",
    Kind.DOCUMENT_READ: "Somebody read the raw bytes of a document, where the setting `record_reads` is on.",
    Kind.DOCUMENTS_DELETED: "Documents are gone, with what was attached to them; their ids, digests and sizes are told.",
    Kind.EXPORTED: "Somebody began to write all of the casefile into a bundle (`docs/bundles.md`).",
    Kind.IMPORTED: "The casefile came into this store out of a bundle; what is before it was written elsewhere.",
}

OF_SESSIONS = {Kind.OPENED, Kind.CLOSED}

NEEDED: dict[Need, str] = {
    "nothing": "nobody: it is open",
    "account": "any account",
    "oneself": "the account itself, or an operator",
    "operator": "operator",
    "reader": "viewer, or anybody where the casefile is public",
    "viewer": "viewer",
    "editor": "editor",
    "admin": "admin",
    "owner": "owner",
    "session": "those who may see the session",
    "operation": "what the operation needs: see `GET /v1/catalog`",
}

STREAMS = {
    "livez": NEEDED["nothing"],
    "readyz": NEEDED["nothing"],
    "catalog": NEEDED["account"],
    "auth_login": NEEDED["nothing"],
    "auth_callback": "nobody; the browser that began the login",
    "auth_who": NEEDED["account"],
    "documents_content": NEEDED["reader"],
    "sessions_stream": NEEDED["session"],
    "sessions_record": NEEDED["session"],
    "operations_part": NEEDED["session"],
}
"""Who may call what is no verb: streams, downloads, catalogue, health, and where a browser is sent."""

UNITS = {
    "_s": "seconds",
    "_bytes": "bytes",
    "_hours": "hours",
    "limit_user": "operations a minute",
    "limit_casefile": "operations a minute",
    "limit_tool": "operations a minute",
    "limit_tools": "operations a minute",
}


def leaves(branch: type[errors.CasekeeperError]) -> Iterator[type[errors.CasekeeperError]]:
    """The errors that are raised, in the order of the tree."""
    below = branch.__subclasses__()
    if not below:
        yield branch
    for child in below:
        yield from leaves(child)


def import_all() -> None:
    """Import every module, so that errors that a room declares for itself are in the tree."""
    for module in pkgutil.walk_packages(casekeeper.__path__, "casekeeper."):
        if ".migrations" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def errors_page() -> str:
    """`docs/errors.md`."""
    import_all()
    rows: list[tuple[str, ...]] = []
    cannot_start = list(leaves(errors.CannotStart))
    answered = (leaf for leaf in leaves(errors.CasekeeperError) if leaf not in cannot_start)
    for leaf in sorted(answered, key=lambda e: (e.status, e.code)):
        retry = "yes" if leaf.retryable else "no"
        rows.append((f"`{leaf.code}`", str(leaf.status), leaf.check or "–", retry, leaf.title))
    return f"""\
# Errors
{NOTE}
A call that is refused, or cannot be served, is answered with an RFC 9457 problem: `application/problem+json` with
`type` (`urn:casekeeper:problem:` and the code), `title`, `status`, `detail`, `instance`, `code`, `check`, `request_id`,
`retryable` and `errors` (what is wrong with which field). Match on `code`: it never changes, while `detail` may.
`check` says which of the checks refused: who, where, what, or admit.

An operation that ran and failed is no problem but a result: status 200, `success` false, `error` with `type`, `message`
and `retryable`. The codes below can occur there as `type` too, where a running operation met them. One that has not ended is
answered with 202: `running`, or `pending` with `waiting_for` where it waits.

{table(("code", "status", "check", "retry helps", "meaning"), rows)}
Some have members of their own: `role_too_low` has `needed_role`, `policy_denies` has `rule` and `needed_role` (null if no
role would do), `approval_needed` has `rule` (null if none of the operators' asks for it), `session_busy` has `open_operations`,
`stale_version` has `current_version`, `route_gone` has `successor` and `documentation`, `rate_limited`,
`still_running` and everything with status 503 come with the header `Retry-After`.

The HTTP door itself knows three more: `method_not_allowed` (405), `bad_request` (400) and `internal_error` (500, with
an `incident` id under which the server's log tells what happened).

With these no process begins. No call is answered with one: whichever command is started ends with one line that names what
it is, and exit code {errors.CannotStart.exit_code} ([cli.md](cli.md)).

{table(("code", "meaning"), [(f"`{leaf.code}`", leaf.title) for leaf in cannot_start])}"""


def settings_page() -> str:
    """`docs/settings.md`."""
    rows = [
        (f"`{PREFIX}{name.upper()}`", _default(field), _unit(name), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return f"""\
# Settings
{NOTE}
The strongest source first: what the command line says, environment variables, a file `casekeeper.toml` (in the working
directory, or where `{CONFIG}` points; names there are in lower case, without the prefix), the defaults. A key that
casekeeper does not know stops the start. `casekeeper config show` prints what is in force, secrets as stars.

{table(("variable", "default", "unit", "meaning"), rows)}"""


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "none (a secret)" if SecretStr in getattr(field.annotation, "__args__", ()) else "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _unit(name: str) -> str:
    return next((unit for end, unit in UNITS.items() if name.endswith(end)), "–")


def events_page() -> str:
    """`docs/events.md`."""

    def of(kinds: Callable[[Kind], bool]) -> str:
        return table(("kind", "what it says"), [(f"`{k.value}`", KINDS[k]) for k in Kind if kinds(k)])

    of_operations = {Kind.STARTED, *TERMINAL}
    return f"""\
# Kinds of facts
{NOTE}
The record of a session is made of facts. [record-format.md](record-format.md) says how they are written and chained;
these are the kinds there are.

About an operation. It leaves `started` and exactly one of the others, all under one `event_id`; a refused call leaves
one `denied` alone. Waiting leaves no fact: an operation that waits has started and not ended, and the fact that ends it
says how long it waited (`waited_ms`).

{of(lambda k: k in of_operations)}
About a session.

{of(lambda k: k in OF_SESSIONS)}
About a casefile and its access list. These are in the casefile's own record, the session that `casefiles/get` names to
admins as `record_session_id`, and so is a `denied` for which no session fits.

{of(lambda k: k not in of_operations | OF_SESSIONS)}"""


def api_page() -> str:
    """`docs/api.md`."""
    needs = {verb.operation_id: _needs(verb) for verb in VERBS.values()} | STREAMS
    groups: dict[str, list[tuple[str, ...]]] = {}
    for path, methods in build_app(None).openapi()["paths"].items():
        for method, operation in methods.items():
            said = operation["description"].split("\n\n")[0].replace("\n", " ")
            name = operation["operationId"]
            row = (f"`{method.upper()} {path}`", f"`{name}`", said, needs.pop(name))
            groups.setdefault(operation["tags"][0], []).append(row)
    if needs:
        raise LookupError(f"There are no such routes: {', '.join(sorted(needs))}")
    rows = [row for group in groups.values() for row in group]
    return f"""\
# Routes
{NOTE}
`GET /openapi.json` describes all of them with their fields; this is the list, and who may call what. Whoever may not
see a casefile, or a session, gets the same 404 as for one that does not exist. Every `POST` takes the envelope
`{{"request_id"?, "user_id"?, "payload", "metadata"?}}`, except the upload, whose body is the file.

{table(("route", "operation id", "what it does", "needs"), rows)}
The routes of the former API, `/v1/tool-sessions…` and `/v1/chat…`, answer 410 and name their successor:
[migration.md](migration.md).
"""


def _needs(verb: Verb) -> str:
    return "; ".join(filter(None, (NEEDED[verb.needs], verb.note)))


PAGES: dict[str, Callable[[], str]] = {
    "api.md": api_page,
    "errors.md": errors_page,
    "events.md": events_page,
    "settings.md": settings_page,
}


def main(arguments: Sequence[str] | None = None, docs: Path = DOCS) -> int:
    """Write the pages, or check them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of step")
    checks = parser.parse_args(arguments).check
    stale: list[str] = []
    for name, make in PAGES.items():
        path, text = docs / name, make()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not checks:
            path.write_text(text)
    for name in stale:
        print(f"docs/{name} {'is out of step: run `make format`' if checks else 'written'}")
    return 1 if checks and stale else 0


if __name__ == "__main__":
    sys.exit(main())
