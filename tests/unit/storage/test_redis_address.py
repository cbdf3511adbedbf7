"""Which addresses are those of a Redis."""

from pathlib import Path

import pytest

from casekeeper.storage.redis_address import check
from tests.fakes.certificates import certified


@pytest.mark.parametrize(
    "address",
    [
        "redis://localhost",
        "redis://localhost/",
        "redis://user:pass%40word@127.0.0.1:6379/12",
        "redis://[::1]:6379/0",
        "rediss://redis.example.org",
    ],
)
def test_what_may_be_one_is_let_through(address: str) -> None:
    check(address)


def test_files_may_be_named_where_tls_is_spoken(tmp_path: Path) -> None:
    tls = certified(tmp_path)

    check(f"rediss://h?ssl_ca_certs={tls.authority}&ssl_certfile={tls.certificate}&ssl_keyfile={tls.key}")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis://:word@:1",
        "redis://h:0",
        "redis://h:port",
        "redis://h:65536",
        "redis://h/first",
        "redis://h/1/2",
        "redis://h/\u0663",
        "redis://h?=",
        "redis://h?db",
        "redis://h?decode_responses=1",
        "redis://h?ssl_ca_certs=there.pem",
        "rediss://h?ssl_ca_cert=there.pem",
        "rediss://h?ssl_cert_reqs=none",
    ],
)
def test_what_is_none_is_told_without_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    certified(tmp_path).authority.rename("there.pem")
    with pytest.raises(ValueError, match=r"no address|Port|port|bad query|invalid") as told:
        check(address)

    assert not address or address not in str(told.value)


@pytest.mark.parametrize("name", ["absent.pem", "empty.pem", "."])
def test_a_file_of_authorities_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.pem").touch()

    with pytest.raises(OSError, match=r"No such file|directory|no certificates") as told:
        check(f"rediss://h?ssl_ca_certs={tmp_path / name}")

    assert told.value.filename == str(tmp_path / name)
