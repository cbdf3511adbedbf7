"""The container's files, without an engine: what they copy exists, what they run runs, and the check of health checks."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from casekeeper.settings import Settings
from tests.doors.commands import serve

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120)


def instructions(name: str) -> list[str]:
    """What follows a keyword of the Dockerfile, lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.removeprefix(name).strip() for line in text.splitlines() if line.startswith(f"{name} ")]


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    copied = {
        source
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }

    assert {source.removeprefix("./") for source in copied} == kept
    assert [source for source in kept if not (ROOT / source).exists()] == []


def test_it_runs_as_a_user_without_rights_who_owns_the_volume() -> None:
    assert instructions("USER") == ["casekeeper"]
    assert instructions("VOLUME") == ["/data"]
    assert any("install -d -o casekeeper -m 0700 /data" in line for line in instructions("RUN"))


def test_every_setting_in_the_files_is_one() -> None:
    named = re.findall(r"CASEKEEPER_([A-Z_]+)", " ".join(instructions("ENV")))
    named += [name.removeprefix("CASEKEEPER_") for name in compose()["services"]["casekeeper"]["environment"]]

    assert {"DATA", "HOST", "STORE"} <= set(named)
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_what_it_starts_becomes_healthy_and_stops_in_order(tmp_path: Path) -> None:
    assert (instructions("ENTRYPOINT"), instructions("CMD")) == (['["casekeeper"]'], ['["serve"]'])
    [health] = instructions("HEALTHCHECK")
    check = yaml.safe_load(health.partition("CMD ")[2])
    served = serve(tmp_path / "data", "--host", "127.0.0.1")
    try:
        code = check[2].replace("http://127.0.0.1:8377", served.url)
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
        with urllib.request.urlopen(f"{served.url}/readyz") as answer:
            assert answer.status == 200
    finally:
        assert served.stop() == 0
        served.process.communicate()
    gone = subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.DEVNULL)
    assert gone.returncode != 0


def test_the_server_has_longer_to_stop_than_what_runs_has_to_end() -> None:
    grace_s = int(compose()["services"]["casekeeper"]["stop_grace_period"].removesuffix("s"))

    assert grace_s > Settings.model_fields["drain_s"].default
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_services_and_volumes_that_are_named_are_there() -> None:
    told = compose()
    for service in told["services"].values():
        assert set(service.get("depends_on", {})) <= set(told["services"])
        volumes = [volume.partition(":")[0] for volume in service.get("volumes", [])]
        assert set(volumes) <= set(told["volumes"])
