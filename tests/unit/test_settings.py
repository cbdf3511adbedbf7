import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from casekeeper.settings import Settings, masked

SECRETS = ["google_api_key", "openai_api_key", "anthropic_api_key"]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory and an environment without any setting of this machine."""
    import os

    for name in [name for name in os.environ if name.upper().startswith("CASEKEEPER_")]:  # noqa: TID251
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_setting_has_a_default():
    assert Settings().port == 8377


def test_the_environment_sets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CASEKEEPER_PORT", "9000")

    assert Settings().port == 9000


def test_a_file_in_the_working_directory_sets(bare: Path):
    (bare / "casekeeper.toml").write_text("port = 9001\neverybody_creates = false\n")

    settings = Settings()

    assert (settings.port, settings.everybody_creates) == (9001, False)


def test_a_file_elsewhere_sets_where_it_is_named(bare: Path, monkeypatch: pytest.MonkeyPatch):
    (bare / "casekeeper.toml").write_text("port = 9001\n")
    (bare / "other.toml").write_text("port = 9002\n")
    monkeypatch.setenv("CASEKEEPER_CONFIG", str(bare / "other.toml"))

    assert Settings().port == 9002


def test_the_environment_is_stronger_than_the_file(bare: Path, monkeypatch: pytest.MonkeyPatch):
    (bare / "casekeeper.toml").write_text("port = 9001\n")
    monkeypatch.setenv("CASEKEEPER_PORT", "9000")

    assert Settings().port == 9000


def test_what_the_command_line_says_is_the_strongest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CASEKEEPER_PORT", "9000")

    assert Settings(port=9003).port == 9003


def test_an_unknown_variable_stops_the_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CASEKEEPER_PROT", "9000")

    with pytest.raises(ValidationError, match="CASEKEEPER_PROT"):
        Settings()


def test_an_unknown_key_in_the_file_stops_the_start(bare: Path):
    (bare / "casekeeper.toml").write_text("prot = 9001\n")

    with pytest.raises(ValidationError, match="prot"):
        Settings()


def test_a_variable_of_somebody_else_is_none_of_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CASEKEEPERS_PORT", "9000")

    assert Settings().port == 8377


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "65536"), ("PORT", "-1"), ("PORT", "x"), ("DRAIN_S", "-1"), ("UPLOAD_BYTES", "0")],
)
def test_a_value_that_does_not_fit_stops_the_start(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(f"CASEKEEPER_{name}", value)

    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_a_broken_file_stops_the_start(bare: Path):
    (bare / "casekeeper.toml").write_text("port = \n")

    with pytest.raises(ValueError):
        Settings()


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # pyright: ignore[reportAttributeAccessIssue] - this is what is refused


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_masked(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(f"CASEKEEPER_{name.upper()}", "hush-hush")
    settings = Settings()

    shown = masked(settings)

    assert shown[name] == "**********"
    assert "hush-hush" not in str(shown)
    assert "hush-hush" not in repr(settings)


def test_every_setting_that_sounds_secret_is_masked():
    loud = [
        name
        for name, field in Settings.model_fields.items()
        if name.endswith(("_key", "_secret", "_password", "_token"))
        and "SecretStr" not in str(field.annotation)
    ]

    assert loud == []


def test_every_setting_is_described():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


RULES = [{"name": "hr", "then": "deny", "tags": ["HR"], "effects": ["external"]}]


def test_rules_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CASEKEEPER_POLICIES", json.dumps(RULES))

    (rule,) = Settings().policies

    assert (rule.name, rule.then, rule.tags) == ("hr", "deny", ["hr"])


def test_rules_come_from_the_file(bare: Path):
    (bare / "casekeeper.toml").write_text(
        '[[policies]]\nname = "hr"\nthen = "approval"\ntools = ["mail_*"]\n'
    )

    (rule,) = Settings().policies

    assert (rule.then, rule.named) == ("approval", {"tool": ["mail_*"]})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([*RULES, {"name": "x", "then": "deny", "effects": ["sned"]}], "rule x, effects.0: Input should be"),
        ({"name": "hr"}, "must be a list of rules"),
    ],
)
def test_a_bad_rule_stops_the_start_with_its_name_and_field(
    given: object, said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CASEKEEPER_POLICIES", json.dumps(given))

    with pytest.raises(ValidationError, match=said):
        Settings()


def test_rules_that_are_no_json_stop_the_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CASEKEEPER_POLICIES", "deny everything")

    with pytest.raises(ValueError, match="policies"):
        Settings()
