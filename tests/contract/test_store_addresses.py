"""Addresses of stores: those that name none, or ask for what cannot be, are told apart from those that are away."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from casekeeper.errors import SettingsInvalid, StoreUnavailable
from casekeeper.storage.opening import open_storage
from tests.fakes.postgres import Postgres


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("mysql://localhost/x", "mysql"),
        ("casekeeper.db", "no scheme"),
        ("sqlite://", "sqlite:///path"),
        ("sqlite://host/path", "sqlite:///path"),
        ("firestore://", "firestore://project"),
        ("firestore:///database", "firestore://project"),
        ("firestore://a/b/c", "firestore://project"),
        ("firestore://a?emulator=", "emulator=host:port"),
        ("firestore://a?emulator=localhost", "emulator=host:port"),
        ("firestore://a?emulaotr=127.0.0.1:1", "emulator=host:port"),
        ("postgresql://[::1/x", "cannot be read"),
        ("postgresql://word:hidden@h:port/x", "host or port"),
        ("postgresql://word:hidden@127.0.0.1:65536/x", "host or port"),
        ("postgresql://word:hidden@127.0.0.1:1/x?sslmode=perhaps", "sslmode"),
    ],
)
async def test_an_address_that_names_no_store_is_told(address: str, says: str, tmp_path: Path):
    with pytest.raises(SettingsInvalid, match=says) as told:
        async with open_storage(address, tmp_path, lambda _: None):
            pass
    assert "hidden" not in str(told.value)


async def test_an_option_that_the_server_does_not_know_is_told(database: str, tmp_path: Path):
    with pytest.raises(SettingsInvalid, match="unrecognized configuration parameter"):
        async with open_storage(f"{database}?conect_timeout=3", tmp_path, lambda _: None):
            pass


async def test_an_address_with_a_path_is_an_embedded_store(tmp_path: Path):
    async with open_storage(f"sqlite:///{tmp_path / 'there'}", tmp_path / "data", lambda _: None) as store:
        assert (await store.accounts.head()).number == 0
    assert (tmp_path / "there" / "casekeeper.db").exists()


@pytest.mark.parametrize("what", ["a wrong database", "a wrong user", "nobody listens"])
async def test_a_server_that_lets_nobody_in_is_unavailable(postgres: Postgres, what: str, tmp_path: Path):
    parts = urlsplit(postgres.url)
    url = {
        "a wrong database": parts._replace(path="/absent"),
        "a wrong user": parts._replace(netloc=f"absent@127.0.0.1:{parts.port}"),
        "nobody listens": parts._replace(netloc="casekeeper@127.0.0.1:1"),
    }[what].geturl()
    with pytest.raises(StoreUnavailable, match="be reached"):
        async with open_storage(url, tmp_path, lambda _: None):
            pass


async def test_firestore_without_credentials_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    # Else it is asked whether this is one of Google's machines.
    monkeypatch.setenv("NO_GCE_CHECK", "true")

    with pytest.raises(StoreUnavailable, match="gcloud auth application-default login"):
        async with open_storage("firestore://a", tmp_path / "data", lambda _: None):
            pass
