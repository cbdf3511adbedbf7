"""The command line beside servers in processes of their own, and the demo."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from casekeeper.cli import saved_logins
from tests.doors.commands import OPERATOR, Cli, Served, a_casefile, serve

# Servers are processes of their own here, and a busy machine starts them slowly.
pytestmark = pytest.mark.timeout(120)


# A server


def test_commands_reach_a_directory_through_the_server_that_holds_it(cli: Cli, served: Served) -> None:
    here = ("--data", served.data)
    casefile_id = a_casefile(cli, served.data)
    assert casefile_id in {c["casefile_id"] for c in cli("casefile", "list", "--json", *here).json}
    assert cli("run", "tool", "note_add", "-c", casefile_id, "-p", "text=x", *here).code == 0
    assert cli("verify", *here).code == 0
    assert f"running at {served.url}" in cli("doctor", *here).out
    assert cli("casefile", "list", "--user", "nobody@example.com", *here).code == 10
    assert (cli("migrate", *here).code, cli("serve", "--port", "0", *here).code) == (20, 20)


def test_a_login_is_saved_used_and_forgotten(cli: Cli, served: Served) -> None:
    password = (served.data / "password").read_text()
    login = ("login", served.url, "--user", OPERATOR, "--password-stdin")
    assert cli(*login, stdin="wrong\n").code == 10
    assert cli(*login, stdin=f"{password}\n").code == 0
    assert saved_logins.path().stat().st_mode & 0o077 == 0
    casefile_id = cli("casefile", "create", "Far away").out.strip()
    assert cli("casefile", "list", "--url", served.url, "--json").json[0]["casefile_id"] == casefile_id
    assert cli("casefile", "list", "--user", "sam@example.com").code == 10
    assert "intact: " in cli("verify").out
    secret = cli("key", "create", "other", "--json").json["api_key"]
    assert cli("logout").code == 0
    assert cli("casefile", "list").code == 20
    assert cli("login", served.url, "--api-key-stdin", stdin=secret + "\n").code == 0
    assert cli("casefile", "list").code == 0


def test_a_server_that_is_away_is_told(cli: Cli) -> None:
    saved_logins.save(saved_logins.SavedLogin("http://127.0.0.1:9", OPERATOR, "ck_x_y"))
    ended = cli("casefile", "list")
    assert (ended.code, "unreachable" in ended.err) == (18, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_in_order_when_it_is_told_to(data: Path, number: int) -> None:
    served = serve(data)
    written = json.loads((data / "server.json").read_text())
    assert written == {"url": served.url, "pid": served.process.pid}
    assert served.password is None
    assert served.stop(number) == 0
    assert served.process.communicate()[1] == ""
    assert not (data / "server.json").exists()


def test_a_port_that_is_taken_is_told(cli: Cli, served: Served, tmp_path: Path) -> None:
    port = served.url.rpartition(":")[2]
    ended = cli("serve", "--port", port, "--data", tmp_path / "other")
    assert (ended.code, "Cannot listen" in ended.err) == (18, True)


def test_tail_shows_what_happens_until_it_is_interrupted(cli: Cli, served: Served) -> None:
    here = ("--data", served.data)
    casefile_id = a_casefile(cli, served.data)
    work = ("run", "tool", "casefile_summary", "-c", casefile_id, "--json", *here)
    session_id = cli(*work).json["session_id"]
    command = [sys.executable, "-m", "casekeeper.cli", "tail", session_id, "--json", *map(str, here)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        first = [json.loads(tail.stdout.readline())["seq"] for _ in range(3)]
        cli(*work)
        then = [json.loads(tail.stdout.readline())["seq"] for _ in range(2)]
        tail.send_signal(signal.SIGINT)
        assert tail.wait(10) == 130
    assert first + then == [1, 2, 3, 4, 5]


def test_an_interrupted_import_is_cancelled_and_leaves_the_directory_well(
    cli: Cli, data: Path, tmp_path: Path
) -> None:
    here = ("--data", data)
    casefile_id = a_casefile(cli, data)
    mailbox = tmp_path / "big.mbox"
    mailbox.write_bytes(b"".join(b"From a\nSubject: %d\n\nhello\n\n" % n for n in range(60_000)))
    command = [sys.executable, "-m", "casekeeper.cli", "import", casefile_id, str(mailbox), *map(str, here)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as importing:
        deadline = time.monotonic() + 20
        while not _open_operations(data) and time.monotonic() < deadline:
            time.sleep(0.05)
        importing.send_signal(signal.SIGINT)
        _, err = importing.communicate(timeout=20)
    assert importing.returncode == 130
    assert "Stopped in big.mbox" in err
    session_id = next(
        s["session_id"] for s in cli("verify", "--json", *here).json["report"]["sessions"] if s["facts"] > 2
    )
    kinds = [json.loads(line)["kind"] for line in cli("tail", session_id, "--json", *here).out.splitlines()]
    assert kinds == ["opened", "started", "cancelled"]


def _open_operations(data: Path) -> int:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(data / "casekeeper.db")) as connection:
        return connection.execute("SELECT count(*) FROM open_operations").fetchone()[0]


# The demo


def test_the_demo_tells_its_story_twice_and_touches_no_other_directory(
    cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASEKEEPER_PORT", "0")
    place = tmp_path / "demo"
    told = cli("demo", "--exit", "--data", place)
    assert told.code == 0, told.err
    for words in ("50 documents filed", "404, as for one that is missing", "403 role_too_low", "intact"):
        assert words in told.out
    steps = [
        json.loads(line)["step"] for line in cli("demo", "--exit", "--json", "--data", place).out.splitlines()
    ]
    assert steps[-2:] == ["Verified", "login"]
    refused = cli("demo", "--exit", "--data", data)
    assert (refused.code, "no demo's" in refused.err) == (20, True)


def test_output_into_a_pipe_that_closes_is_no_error(data: Path) -> None:
    command = f"{sys.executable} -m casekeeper.cli config show --json --data {data} | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
