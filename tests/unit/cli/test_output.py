"""What commands print."""

import pytest

from casekeeper.cli.output import Output
from casekeeper.identity.logouts import LoggedOut

ENDED = LoggedOut(
    user_id="anna@example.com",
    everywhere=True,
    stopped=["evt_1"],
    unconfirmed={"worker-2": ["evt_2", "evt_3"]},
)


def test_a_receipt_names_what_ended_and_what_was_not_heard_of(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).receipt(ENDED, "anna@example.com is logged out everywhere.")

    printed = capsys.readouterr()
    assert printed.out == "anna@example.com is logged out everywhere. Stopped: evt_1.\n"
    assert printed.err == "Not heard of yet from worker-2: evt_2, evt_3. They can do nothing any more.\n"
