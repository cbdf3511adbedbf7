import stat
from pathlib import Path

from casekeeper.identity.keys import SigningKeys


class Seconds:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_first_start_makes_a_key(tmp_path: Path):
    kid, _ = SigningKeys(tmp_path / "keys").current

    assert [path.stem for path in (tmp_path / "keys").iterdir()] == [kid]


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
