"""The examples and scripts that the documentation names do what they say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def ran(*arguments: str) -> str:
    """What a script prints; it must end well."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(60)
def test_the_quickstart_runs() -> None:
    printed = ran("examples/quickstart.py")
    assert "50 documents filed" in printed
    assert "gmail_search succeeded" in printed
    assert "refused: arguments_invalid" in printed


@pytest.mark.timeout(60)
def test_the_integration_script_passes_on_a_server_of_its_own() -> None:
    printed = ran("scripts/test_unified_sessions.py")
    assert "Test 1: Server Health\n✓ Server is running (status: 200)" in printed
    assert printed.count("✓ Endpoint found: /v1/sessions/") == 5
    assert "  User ID: sam@example.com\n  Active: True" in printed
    assert "RESULTS: 3/3 tests passed" in printed


def test_the_integration_script_needs_a_login_for_a_server_that_runs() -> None:
    command = [sys.executable, "scripts/test_unified_sessions.py", "--url", "http://127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "casekeeper login http://127.0.0.1:9" in done.stderr
