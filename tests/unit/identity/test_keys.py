import errno
import os
import secrets
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import NoReturn

import pytest

from casekeeper.identity.keys import SigningKeys, made_once

AT_ONCE = 8


def all_at_once(work: Callable[[], object]) -> list[object]:
    """What each of several threads gets that begin at the same moment."""
    barrier = Barrier(AT_ONCE)

    def begin(_: int) -> object:
        barrier.wait(10)
        return work()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(begin, range(AT_ONCE)))


class Seconds:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_first_start_makes_a_key(tmp_path: Path):
    kid, _ = SigningKeys(tmp_path / "keys").current

    assert [path.stem for path in (tmp_path / "keys").glob("*.pem")] == [kid]


def test_a_restart_keeps_the_key(tmp_path: Path):
    kid, key = SigningKeys(tmp_path).current

    again_kid, again = SigningKeys(tmp_path).current

    assert (again_kid, again.as_dict()) == (kid, key.as_dict())


def test_keys_are_for_their_owner_only(tmp_path: Path):
    kid, _ = SigningKeys(tmp_path / "keys").current

    modes = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "keys", tmp_path / "keys" / f"{kid}.pem")]

    assert modes == [0o700, 0o600]


def test_the_newest_key_signs_and_the_older_one_still_verifies(tmp_path: Path):
    keys = SigningKeys(tmp_path)
    old, _ = keys.current

    new = keys.rotate()

    assert keys.current[0] == new
    assert keys.find(old) is not None


def test_each_key_is_another(tmp_path: Path):
    keys = SigningKeys(tmp_path)
    first = keys.current[1].as_dict()
    keys.rotate()

    assert keys.current[1].as_dict() != first


def test_a_key_that_another_process_made_is_found(tmp_path: Path):
    seconds = Seconds()
    keys = SigningKeys(tmp_path, seconds)
    kid = SigningKeys(tmp_path).rotate()
    seconds.now += 5.1

    assert keys.find(kid) is not None


def test_the_disk_is_looked_at_every_five_seconds_at_most(tmp_path: Path):
    seconds = Seconds()
    keys = SigningKeys(tmp_path, seconds)
    kid = SigningKeys(tmp_path).rotate()
    seconds.now += 5.0

    assert keys.find(kid) is None


def test_a_flood_of_unknown_kids_costs_one_look(tmp_path: Path):
    seconds = Seconds()
    keys = SigningKeys(tmp_path, seconds)
    seconds.now += 6
    keys.find("unknown")
    kid = SigningKeys(tmp_path).rotate()

    found = [keys.find(kid) for _ in range(100)]

    assert found == [None] * 100


def test_a_known_key_needs_no_disk(tmp_path: Path):
    seconds = Seconds()
    keys = SigningKeys(tmp_path, seconds)
    kid, _ = keys.current
    (tmp_path / f"{kid}.pem").unlink()
    seconds.now += 100

    assert keys.find(kid) is not None


@pytest.mark.parametrize("directory", [f"start-{n}" for n in range(20)])
def test_first_starts_at_once_sign_with_one_key(tmp_path: Path, directory: str):
    kids = all_at_once(lambda: SigningKeys(tmp_path / directory).current[0])

    assert len(set(kids)) == 1
    assert [path.stem for path in (tmp_path / directory).glob("*.pem")] == [kids[0]]


@pytest.mark.parametrize("name", [f"secret-{n}" for n in range(20)])
def test_what_is_made_once_is_the_same_for_all_who_ask_at_once(tmp_path: Path, name: str):
    made = all_at_once(lambda: made_once(tmp_path / name, lambda: secrets.token_bytes(32)))

    assert len(set(made)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_links(*_: object) -> NoReturn:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)

    assert made_once(tmp_path / "secret", lambda: b"x") == b"x"
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_a_disk_that_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)

    with pytest.raises(OSError, match="No space"):
        made_once(tmp_path / "secret", lambda: b"x")
    assert not list(tmp_path.iterdir())
