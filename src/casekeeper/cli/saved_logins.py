"""Saved logins: one API key per server, in the user's configuration directory, for nobody else to read."""

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from casekeeper.values import value


@value
class SavedLogin:
    """A server and the API key that opens it."""

    url: str
    user_id: str
    api_key: str
    key_id: str | None = None


def path() -> Path:
    """Where logins are kept, by the platform's convention."""
    return Path(typer.get_app_dir("casekeeper")) / "logins.json"


def find(url: str | None = None) -> SavedLogin | None:
    """The login for a server; without one named, the last that was made."""
    logins = _read()
    return logins[-1] if logins and url is None else next((x for x in logins if x.url == url), None)


def save(login: SavedLogin) -> None:
    """Keep a login; it is the one that is used from now on."""
    _write([*(x for x in _read() if x.url != login.url), login])


def forget(url: str) -> None:
    """Keep it no longer."""
    _write([x for x in _read() if x.url != url])


def normal(url: str) -> str:
    """The one spelling of a server's address."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


def _read() -> list[SavedLogin]:
    try:
        stored: list[dict[str, Any]] = json.loads(path().read_text("utf-8"))
        return [SavedLogin(**login) for login in stored]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def _write(logins: list[SavedLogin]) -> None:
    file_path = path()
    file_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = file_path.with_suffix(".new")
    with suppress(FileNotFoundError):
        aside.unlink()
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump([asdict(login) for login in logins], file, indent=2)
    aside.replace(file_path)
