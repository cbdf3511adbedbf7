"""The command line: commands run in this process on a data directory of their own; servers run in one of theirs."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.doors.commands import OPERATOR, SAMPLE, Cli, a_casefile

# Help, usage, errors


def test_help_names_every_command_and_the_exit_codes(cli: Cli) -> None:
    told = cli("--help")
    assert told.code == 0
    for command in [
        "serve",
        "demo",
        "login",
        "token",
        "user",
        "key",
        "casefile",
        "import",
        "search",
        "show",
        "run",
        "call",
        "tail",
        "verify",
        "export",
        "import-bundle",
        "backup",
        "restore",
        "doctor",
        "migrate",
        "reindex",
        "config",
    ]:
        assert f"  {command} " in told.out
    assert "Exit codes" in told.out


def test_help_comes_without_the_libraries_of_a_server() -> None:
    heavy = ["rich", "httpx2", "pydantic", "fastapi", "sqlalchemy", "uvicorn"]
    program = f"import sys\nfrom casekeeper.cli.app import run\nrun(['--help'])\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["no-such-command"], 2, "No such command"),
        (["casefile", "list", "--no-such-option"], 2, "No such option"),
        (["casefile", "create"], 2, "Missing argument"),
        (["serve", "--workers", "2"], 2, "--workers must be 1"),
        (["run", "tool", "noop"], 2, "--casefile or --session"),
        (["run", "tool", "x", "-c", "y", "-p", "no equals sign"], 2, "key=text"),
        (["run", "tool", "x", "-c", "y", "-p", "a:=nonsense"], 2, "is not JSON"),
        (["run", "tool", "x", "-c", "y", "--json-params", "[1]"], 2, "JSON object"),
        (["run", "tool", "x", "-c", "y", "--json-params", "@absent"], 2, "No such file"),
        (["call", "casefiles/paint"], 2, "no verb 'casefiles/paint'"),
        (["call", "auth/token"], 2, "no verb 'auth/token'"),
        (["call", "casefiles/get", "no equals sign"], 2, "A field takes key=text"),
        (["call", "casefiles/get", "casefile_id=nonsense"], 15, "payload.casefile_id"),
        (["import", "cf_260101_000000", "absent.mbox"], 2, "no file absent.mbox"),
        (["verify", "absent.jsonl"], 2, "cannot be read"),
        (["verify", "--head", "nonsense"], 2, "ID:SEQ:HASH"),
        (["verify", "--head", "ts_260101_x_000000:1:0123456789ab"], 2, "all 64 digits"),
        (["casefile", "list", "--url", "http://x", "--data", "y"], 2, "either --url or --data"),
        (["casefile", "list", "--url", "x.example"], 10, "casekeeper login http://x.example"),
        (["casefile", "list", "--user", "nobody@example.com"], 10, "no active account"),
        (["casefile", "show", "cf_260101_000000"], 12, "casefile_not_found"),
        (["casefile", "show", "nonsense"], 15, "payload.casefile_id"),
        (["tail", "ts_260101_x_000000"], 12, "session_not_found"),
        (["export", "cf_260101_000000"], 12, "no casefile"),
        (["verify", "--session", "ts_260101_x_000000"], 12, "no record of"),
        (["user", "create", "operator@localhost"], 13, "account_exists"),
        (["user", "password", "operator@localhost", "--password-stdin"], 2, "Nothing came on stdin"),
        (["logout"], 10, "no login to forget"),
    ],
    ids=str,
)
def test_what_goes_wrong_is_one_plain_line_and_an_exit_code(
    cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], code: int, says: str
) -> None:
    monkeypatch.setenv("CASEKEEPER_DATA", str(data))
    ended = cli(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1


def test_a_missing_data_directory_is_not_made_by_accident(cli: Cli, tmp_path: Path) -> None:
    ended = cli("casefile", "list", "--data", tmp_path / "typo")
    assert ended.code == 20
    assert "casekeeper serve" in ended.err
    assert not (tmp_path / "typo").exists()


def test_settings_that_do_not_fit_are_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASEKEEPER_PROT", "1")
    ended = cli("config", "show")
    assert (ended.code, "CASEKEEPER_PROT" in ended.err) == (20, True)
    monkeypatch.delenv("CASEKEEPER_PROT")
    monkeypatch.setenv("CASEKEEPER_PORT", "many")
    assert "port: " in cli("config", "show").err


def test_config_show_masks_secrets(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASEKEEPER_OPENAI_API_KEY", "sk-secret")
    for arguments in (["config", "show"], ["config", "show", "--json"]):
        told = cli(*arguments)
        assert told.code == 0
        assert "sk-secret" not in told.out
        assert "openai_api_key" in told.out


# A data directory that nobody holds


def test_casefiles_are_made_shared_shown_and_deleted(cli: Cli, data: Path) -> None:
    here = ("--data", data)
    casefile_id = a_casefile(cli, data)
    assert cli("user", "create", "sam@example.com", "--no-password", *here).code == 0
    assert (
        cli(
            "casefile", "grant", casefile_id, "sam@example.com", "editor", "--until", "2099-01-01", *here
        ).code
        == 0
    )
    shown = cli("casefile", "show", casefile_id, *here)
    assert "Rent dispute" in shown.out
    assert "sam@example.com" in shown.out
    listed = cli("casefile", "list", "--user", "sam@example.com", "--json", *here).json
    assert [(c["casefile_id"], c["user_permission"]) for c in listed] == [(casefile_id, "editor")]
    assert cli("casefile", "revoke", casefile_id, "sam@example.com", *here).code == 0
    assert cli("casefile", "show", casefile_id, "--user", "sam@example.com", *here).code == 12
    refused = cli("casefile", "delete", casefile_id, *here, stdin="n\n")
    assert refused.code == 130
    assert cli("casefile", "delete", casefile_id, "--yes", *here).code == 0
    assert cli("casefile", "list", "--json", *here).json == []


def test_mail_is_imported_searched_recorded_exported_and_verified(
    cli: Cli, data: Path, tmp_path: Path
) -> None:
    here = ("--data", data)
    casefile_id = a_casefile(cli, data)
    filed = cli("import", casefile_id, SAMPLE, *here)
    assert "50 filed" in filed.out
    again = cli("import", casefile_id, SAMPLE.parent / "sample.mbox", "--json", *here).json
    assert again[0]["result"]["outputs"]["duplicates"] == 50
    found = cli(
        "run", "tool", "gmail_search", "-c", casefile_id, "-p", "query=invoice", "-p", "max_results:=2", *here
    )
    assert len(found.json["messages"]) == 2
    assert "gmail_search · " in found.err
    session_id = cli(
        "run", "tool", "note_add", "-c", casefile_id, "--json-params", '{"text": "hi"}', "--json", *here
    ).json["session_id"]
    facts = [json.loads(line) for line in cli("tail", session_id, "--json", *here).out.splitlines()]
    assert [f["seq"] for f in facts] == list(range(1, 10))
    told = cli("tail", session_id, "--after", "7", *here)
    assert "note_add" in told.out
    assert "No server is running" in told.err
    assert "intact: 2 sessions" in cli("verify", *here).out
    assert "intact: 1 sessions" in cli("verify", "--session", session_id, *here).out
    assert "intact: 2 sessions" in cli("verify", "--casefile", casefile_id, "--user", OPERATOR, *here).out
    exported = cli("export", casefile_id, "--record", "-o", tmp_path / "record.jsonl", *here)
    assert exported.code == 0
    assert (tmp_path / "record.jsonl").stat().st_mode & 0o077 == 0
    assert cli("verify", tmp_path / "record.jsonl").code == 0
    assert cli("export", casefile_id, "--record", "-o", "-", *here).out == (
        tmp_path / "record.jsonl"
    ).read_text("utf-8")


def test_any_verb_is_called_by_its_name(cli: Cli, data: Path) -> None:
    create = ("call", "casefiles/create", "title=Flat 4", 'tags:=["rent"]', "--request-id", "once")
    made = [cli(*create, "--data", data).json for _ in range(2)]
    assert made[0] == made[1]
    assert (made[0]["title"], made[0]["tags"]) == ("Flat 4", ["rent"])


def test_documents_are_searched_and_shown(cli: Cli, data: Path) -> None:
    here = ("--data", data)
    casefile_id = a_casefile(cli, data)
    cli("import", casefile_id, SAMPLE, *here)
    told = cli("search", casefile_id, "has:attachment", "lighthouse", "--facets", *here)
    assert "Invoice 2024-001" in told.out
    assert "1 documents in all" in told.err
    assert "years: 2024 (1)" in told.err
    found = cli("search", casefile_id, "label:tax-2024", "--order", "oldest", "--json", *here).json
    assert found["items"][0]["title"] == "Tax assessment notice of 14 May 2024"
    document_id = found["items"][0]["document_id"]
    shown = cli("show", casefile_id, document_id, *here)
    assert "Tax Office Freiburg" in shown.out
    assert "your income tax assessment for 2023" in shown.out
    assert cli("show", casefile_id, document_id, "--json", *here).json["document_id"] == document_id
    assert "Nothing was found" in cli("search", casefile_id, *here, "--", "-the", "from:nobody").err
    assert "There is more" in cli("search", casefile_id, "--limit", "1", *here).err
    refused = cli("search", casefile_id, "a", "--order", "random", *here)
    assert (refused.code, "parameters.order" in refused.err) == (15, True)
    before = cli("search", casefile_id, "lighthouse", "--json", *here).json["items"]
    assert "Indexed 50 documents" in cli("reindex", *here).out
    assert cli("search", casefile_id, "lighthouse", "--json", *here).json["items"] == before != []


def test_verify_keeps_the_verifiers_exit_codes(cli: Cli, data: Path, tmp_path: Path) -> None:
    here = ("--data", data)
    casefile_id = a_casefile(cli, data)
    cli("run", "tool", "note_add", "-c", casefile_id, "-p", "text=original", *here)
    lines = cli("export", casefile_id, "--record", "-o", "-", *here).out.splitlines(keepends=True)
    file = tmp_path / "record.jsonl"
    file.write_text("".join(lines).replace("original", "forged"))
    tampered = cli("verify", file)
    assert (tampered.code, "NOT intact" in tampered.out) == (40, True)
    file.write_text("".join([*lines[:2], *lines[3:]]))
    assert cli("verify", file, "--json").json["exit_code"] == 41
    report = cli("verify", *here, "--json").json["report"]
    session_id = report["sessions"][0]["session_id"]
    assert cli("verify", *here, "--head", f"{session_id}:1:{'0' * 64}").code == 42
    assert cli("verify", *here, "--head", f"absent:1:{'0' * 64}").code == 42


def test_a_refused_and_a_failed_operation_end_with_different_codes(cli: Cli, data: Path) -> None:
    here = ("--data", data)
    casefile_id = a_casefile(cli, data)
    refused = cli("run", "tool", "mail_search", "-c", casefile_id, "-p", "query=x", "-p", "limit=0", *here)
    assert (refused.code, "parameters.limit" in refused.err) == (15, True)
    failed = cli("run", "tool", "document_get", "-c", casefile_id, "-p", "document_id=doc_1", *here)
    assert (failed.code, "document_not_found" in failed.err) == (3, True)
    as_json = cli(
        "run", "tool", "document_get", "-c", casefile_id, "-p", "document_id=doc_1", "--json", *here
    )
    assert (as_json.code, as_json.json["success"]) == (3, False)
    cli("user", "create", "vera@example.com", *here)
    cli("casefile", "grant", casefile_id, "vera@example.com", "viewer", *here)
    denied = cli(
        "run", "tool", "note_add", "-c", casefile_id, "-p", "text=x", "--user", "vera@example.com", *here
    )
    assert (denied.code, "role_too_low" in denied.err) == (11, True)


def test_an_agent_shows_its_tools_and_its_answer(cli: Cli, data: Path) -> None:
    here = ("--data", data)
    casefile_id = a_casefile(cli, data)
    cli("import", casefile_id, SAMPLE, *here)
    prompt = ("run", "agent", "offline-researcher", "Find my tax documents from 2024", "-c", casefile_id)
    told = cli(*prompt, *here)
    assert told.code == 0, told.err
    assert "doc_" in told.out
    assert "→ mail_search" in told.err
    assert cli(*prompt, "--json", *here).json["outputs"]["response"] == told.out.removesuffix("\n")


def test_accounts_and_keys_are_looked_after(cli: Cli, data: Path) -> None:
    here = ("--data", data)
    made = cli("user", "create", "sam@example.com", "--name", "Sam", "--json", *here).json
    assert len(made["password"]) >= 10
    assert (
        cli("user", "password", "sam@example.com", "--password-stdin", *here, stdin="a new password\n").code
        == 0
    )
    assert "sam@example.com" in cli("user", "list", *here).out
    key = cli("key", "create", "bot", "--for", "sam@example.com", "--days", "3", "--json", *here).json
    assert key["api_key"].startswith("ck_")
    assert "bot" in cli("key", "list", "--for", "sam@example.com", *here).out
    assert cli("key", "revoke", key["key_id"], *here).code == 0
    assert cli("token", "sam@example.com", "--json", *here).json["user_id"] == "sam@example.com"
    assert cli("user", "deactivate", "sam@example.com", *here).code == 0
    assert cli("token", "sam@example.com", *here).code == 10
    assert cli("user", "activate", "sam@example.com", *here).out == "sam@example.com is active.\n"
    assert cli("token", "sam@example.com", *here).code == 0
    rotated = cli("key", "rotate", "--json", *here).json
    assert (data / "keys" / f"{rotated['kid']}.pem").stat().st_mode & 0o077 == 0


def test_doctor_finds_nothing_and_then_something(cli: Cli, data: Path) -> None:
    well = cli("doctor", "--data", data)
    assert (well.code, "✗" in well.out) == (0, False), well.out
    next((data / "keys").glob("*.pem")).chmod(0o644)
    ill = cli("doctor", "--data", data, "--json")
    assert ill.code == 21
    assert [check["name"] for check in ill.json if check["state"] == "wrong"] == ["keys"]
    assert cli("doctor", "--data", data / "absent").code == 21


RULES = [{"name": "hr", "then": "deny", "tags": ["hr"]}]


def test_rules_are_shown(cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "policies: none" in cli("doctor", "--data", data).out
    monkeypatch.setenv("CASEKEEPER_POLICIES", json.dumps(RULES))

    assert "policies: hr (deny)" in cli("doctor", "--data", data).out
    assert cli("config", "show", "--json", "--data", data).json["policies"][0]["tags"] == ["hr"]
    assert '"name": "hr"' in cli("config", "show", "--data", data).out.replace("\n", "")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"name": "hr", "then": "deny", "effects": ["sned"]}, "rule hr, effects.0"),
        (
            {"name": "hr", "then": "deny", "tools": ["mail_sned"]},
            "rule hr, tools: there is no tool 'mail_sned'",
        ),
    ],
)
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("casefile", "list")])
def test_a_bad_rule_stops_the_start_in_one_line(
    cli: Cli,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    rule: dict[str, object],
    said: str,
    command: tuple[str, ...],
) -> None:
    monkeypatch.setenv("CASEKEEPER_POLICIES", json.dumps([rule]))

    ended = cli(*command, "--data", data)

    assert (ended.code, said in ended.err, ended.err.count("\n")) == (20, True, 1), ended.err


def test_doctor_finds_a_damaged_store(cli: Cli, data: Path) -> None:
    (data / "casekeeper.db").write_bytes(b"not a database" * 1000)
    ill = cli("doctor", "--data", data)
    assert (ill.code, "✗ integrity" in ill.out) == (21, True)
    assert cli("casefile", "list", "--data", data).code == 20


@pytest.mark.parametrize("group", [(), ("user",)])
def test_without_a_command_the_help_is_shown(cli: Cli, group: tuple[str, ...]) -> None:
    ended, asked = cli(*group), cli(*group, "--help")
    assert (ended.code, ended.out, ended.err.rstrip()) == (2, "", asked.out.rstrip())


def test_migrate_says_that_there_is_nothing_to_do(cli: Cli, data: Path) -> None:
    assert "Nothing to do" in cli("migrate", "--data", data).out
