"""What no command can start with: the same line and exit code from every command, and nothing is made by accident."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.doors.commands import Cli

COMMANDS: dict[str, list[str]] = {
    "serve": ["serve", "--port", "0"],
    "serve with workers": ["serve", "--port", "0", "--workers", "2"],
    "casefile list": ["casefile", "list"],
    "user list": ["user", "list"],
    "import": ["import", "cf_260101_000000", "mail.mbox"],
    "search": ["search", "cf_260101_000000", ""],
    "run": ["run", "tool", "noop", "-c", "cf_260101_000000"],
    "tail": ["tail", "ts_260101_x_000000"],
    "token": ["token", "operator@localhost"],
    "key rotate": ["key", "rotate"],
    "verify": ["verify"],
    "export": ["export", "cf_260101_000000"],
    "export --record": ["export", "cf_260101_000000", "--record"],
    "export --documents": ["export", "cf_260101_000000", "--documents"],
    "import-bundle": ["import-bundle", "rent.tar"],
    "backup": ["backup", "kept"],
    "restore": ["restore", "kept"],
    "doctor": ["doctor"],
    "migrate": ["migrate"],
    "reindex": ["reindex"],
    "config show": ["config", "show"],
}


@dataclass(frozen=True)
class Fault:
    """Something that no process can work with: what the environment says, and what the line has to name."""

    says: str
    environment: dict[str, str]
    file: str = ""
    missing: str = ""
    never: list[str] = field(default_factory=lambda: ["hidden-word"])


FAULTS = {
    "a scheme that no store has": Fault(
        "CASEKEEPER_STORE: the scheme", {"STORE": "mysql://x:hidden-word@y/z"}
    ),
    "a path for a store": Fault("CASEKEEPER_STORE: “db” has no scheme", {"STORE": "db"}),
    "a store's port that is none": Fault(
        "CASEKEEPER_STORE: its host or port", {"STORE": "postgresql://x:hidden-word@y:port/z"}
    ),
    "a store's library that is missing": Fault(
        "pip install 'casekeeper[postgres]'", {"STORE": "postgresql://x:hidden-word@y/z"}, missing="asyncpg"
    ),
    "no project of Firestore": Fault(
        "CASEKEEPER_STORE: it must be firestore://", {"STORE": "firestore://a/b/c"}
    ),
    "a place for blobs that is none": Fault("CASEKEEPER_BLOBS: “ftp://x”", {"BLOBS": "ftp://x"}),
    "an option that no bucket has": Fault("no option endpoint", {"BLOBS": "s3://bucket?endpoint=x"}),
    "a library for buckets that is missing": Fault(
        "pip install 'casekeeper[blobs]'", {"BLOBS": "s3://bucket"}, missing="obstore"
    ),
    "no address of a Redis": Fault(
        "CASEKEEPER_REDIS: it must be", {"REDIS": "http://:hidden-word@localhost"}
    ),
    "a file for Redis that is missing": Fault(
        "absent.pem, which cannot be used", {"REDIS": "rediss://:hidden-word@h?ssl_ca_certs=absent.pem"}
    ),
    "a library for Redis that is missing": Fault(
        "pip install 'casekeeper[redis]'", {"REDIS": "redis://:hidden-word@localhost"}, missing="redis"
    ),
    "a setting that there is not": Fault("CASEKEEPER_PROT", {"PROT": "1"}),
    "a value that does not fit": Fault("limit_user: ", {"LIMIT_USER": "many"}),
    "a file of settings that is no TOML": Fault("The settings cannot be read", {}, file="port = = 1"),
    "a file of settings that is missing": Fault("there is no file absent.toml", {"CONFIG": "absent.toml"}),
    "a key in the file that there is not": Fault("prot", {}, file="prot = 1"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_what_no_command_can_start_with_is_one_line_and_one_exit_code(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], fault: Fault
) -> None:
    for name, value in fault.environment.items():
        monkeypatch.setenv(f"CASEKEEPER_{name}", value)
    if fault.file:
        (tmp_path / "casekeeper.toml").write_text(fault.file)
    if fault.missing:
        monkeypatch.setitem(sys.modules, fault.missing, None)
    for name in ("mail.mbox", "rent.tar"):
        (tmp_path / name).touch()

    ended = cli(*command)

    assert (ended.code, ended.out, ended.err.count("\n")) == (20, "", 1), ended.err
    assert ended.err.startswith("error: ")
    assert fault.says in ended.err
    assert not any(word in ended.err for word in fault.never)
    assert not (tmp_path / ".casekeeper").exists()


OPENS = ["casefile list", "token", "key rotate", "verify", "export", "backup", "migrate", "reindex"]


@pytest.mark.parametrize("command", OPENS)
def test_a_data_directory_that_is_not_there_is_the_same_line_for_all(
    cli: Cli, tmp_path: Path, command: str
) -> None:
    ended = cli(*COMMANDS[command], "--data", tmp_path / "typo")

    assert (ended.code, ended.out) == (20, "")
    assert ended.err.startswith(f"error: There is no data directory at {tmp_path / 'typo'}. Start a server")
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("command", ["serve", "casefile list", "verify", "export", "migrate", "reindex"])
def test_a_database_that_is_none_is_one_line(cli: Cli, data: Path, command: str) -> None:
    (data / "casekeeper.db").write_bytes(b"not a database" * 1000)

    ended = cli(*COMMANDS[command], "--data", data)

    assert (ended.code, ended.out, ended.err.count("\n")) == (20, "", 1), ended.err
    assert f"The store in {data} cannot be used: file is not a database" in ended.err


@pytest.mark.parametrize("command", ["serve", "casefile list", "export", "migrate", "reindex"])
def test_a_data_directory_that_is_in_use_is_one_line_that_says_by_whom(
    cli: Cli, data: Path, command: str
) -> None:
    from casekeeper.storage.sqlite.store import DirectoryLock

    lock = DirectoryLock(data)
    try:
        ended = cli(*COMMANDS[command], "--data", data)
    finally:
        lock.release()

    assert (ended.code, ended.out) == (20, "")
    assert ended.err == f"error: {data} is in use by another casekeeper command; let it end first.\n"


@pytest.mark.parametrize("command", ["serve", "casefile list"])
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import a_library_that_is_missing", "No module named 'a_library_that_is_missing'"),
        ("", "has no attribute 'TOOLS'"),
        ("TOOLS = 7", "'int' object is not iterable"),
    ],
)
def test_a_package_whose_tools_cannot_be_loaded_is_named(
    cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: str, says: str
) -> None:
    site = tmp_path / "site"
    (site / "broken-1.0.dist-info").mkdir(parents=True)
    (site / "broken-1.0.dist-info" / "METADATA").write_text("Name: broken\nVersion: 1.0\n")
    entry = "[casekeeper.tools]\nbroken = tools_of_broken:TOOLS\n"
    (site / "broken-1.0.dist-info" / "entry_points.txt").write_text(entry)
    (site / "tools_of_broken.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    monkeypatch.delitem(sys.modules, "tools_of_broken", raising=False)

    ended = cli(*COMMANDS[command], "--data", data)

    assert (ended.code, ended.out, ended.err.count("\n")) == (20, "", 1), ended.err
    assert "The tools of broken cannot be loaded" in ended.err
    assert says in ended.err


@pytest.mark.parametrize("command", ["serve", "casefile list"])
def test_an_alias_that_names_no_provider_is_one_line(
    cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("CASEKEEPER_AGENT_ALIASES", '{"mine": "nobody:model"}')

    ended = cli(*COMMANDS[command], "--data", data)

    assert (ended.code, ended.out, ended.err.count("\n")) == (20, "", 1), ended.err
    assert "CASEKEEPER_AGENT_ALIASES: 'mine' names the provider 'nobody'" in ended.err
