"""A server with Redis beside it, as its users and operators see it."""

import sys
from pathlib import Path

import pytest

from tests.doors.commands import Cli
from tests.fakes.certificates import certified
from tests.fakes.redis import running_redis
from tests.support import Api, open_test_server

# Port 1 is nobody's.
NOWHERE = "redis://:hidden-word@127.0.0.1:1"


async def test_a_server_starts_and_works_without_the_redis_that_it_was_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_test_server(tmp_path / "data", redis=NOWHERE) as server, Api.of(server) as api:
        house = await api.house()
        ran = await api.run(house["owner"], "noop", casefile_id=house.casefile_id)
        ready = await api.get("/readyz")

    assert (ran.status_code, ready.status_code) == (200, 200)
    assert ready.json() == {"status": "ok", "degraded": ["redis"]}
    [said] = [r.getMessage() for r in caplog.records if r.name == "casekeeper.redis"]
    assert said.startswith("Redis at 127.0.0.1:1 cannot be used")
    assert "hidden-word" not in caplog.text


async def test_with_redis_nothing_is_degraded(tmp_path: Path) -> None:
    with running_redis() as redis:
        async with open_test_server(tmp_path / "data", redis=redis.url) as server, Api.of(server) as api:
            house = await api.house()
            ran = await api.run(house["owner"], "noop", casefile_id=house.casefile_id)
            ready = await api.get("/readyz")

    assert ran.status_code == 200
    assert ready.json() == {"status": "ok"}


async def test_redis_is_spoken_to_over_tls(tmp_path: Path) -> None:
    tls = certified(tmp_path)
    with running_redis("--requirepass", "hidden-word", tls=tls) as redis:
        address = redis.url.replace("://", "://:hidden-word@") + f"?ssl_ca_certs={tls.authority}"
        async with open_test_server(tmp_path / "data", redis=address) as server, Api.of(server) as api:
            house = await api.house()
            ran = await api.run(house["owner"], "noop", casefile_id=house.casefile_id)
            ready = await api.get("/readyz")

    assert ran.status_code == 200
    assert ready.json() == {"status": "ok"}


@pytest.mark.parametrize("trusted", ["another authority", "the machine's"])
async def test_a_redis_of_an_authority_that_is_not_trusted_is_one_plain_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trusted: str
) -> None:
    with running_redis(tls=certified(tmp_path)) as redis:
        address = redis.url
        if trusted == "another authority":
            address += f"?ssl_ca_certs={certified(tmp_path, 'other').authority}"
        async with open_test_server(tmp_path / "data", redis=address) as server, Api.of(server) as api:
            ready = await api.get("/readyz")

    assert ready.json() == {"status": "ok", "degraded": ["redis"]}
    [said] = [r.getMessage() for r in caplog.records if r.name == "casekeeper.redis"]
    assert "cannot be used" in said
    assert "certificate verify failed" in said
    assert "\n" not in said


def test_a_file_that_the_address_names_and_that_is_not_there_is_one_plain_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "CASEKEEPER_REDIS", f"rediss://:hidden-word@127.0.0.1:1?ssl_ca_certs={tmp_path}/absent.pem"
    )

    ended = cli("serve", "--port", "0", "--data", tmp_path / "data")

    assert (ended.out, ended.err.count("\n")) == ("", 1), ended.err
    assert ended.code == 20
    assert "absent.pem, which cannot be used" in ended.err
    assert "hidden-word" not in ended.err


@pytest.mark.parametrize("command", [["casefile", "list"], ["serve", "--port", "0"]], ids=" ".join)
def test_what_is_no_address_of_a_redis_is_one_plain_line(
    cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("CASEKEEPER_REDIS", "http://:hidden-word@localhost")

    ended = cli(*command, "--data", data)

    assert (ended.out, ended.err.count("\n")) == ("", 1), ended.err
    assert ended.code == 20
    assert "CASEKEEPER_REDIS: it must be redis://" in ended.err
    assert "hidden-word" not in ended.err


def test_without_the_library_the_start_says_what_to_install(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASEKEEPER_REDIS", NOWHERE)
    monkeypatch.setitem(sys.modules, "redis", None)

    ended = cli("serve", "--port", "0", "--data", tmp_path)

    assert ended.code == 20
    assert "pip install 'casekeeper[redis]'" in ended.err
