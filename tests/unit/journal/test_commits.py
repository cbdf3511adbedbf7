"""What parts of commits are about, from which follows which commits wait for each other."""

import pytest

from casekeeper.casefiles.casefile import GrantEndsAt
from casekeeper.identity.credentials import EndFamily
from casekeeper.journal.commits import About, AboutKind, Condition, Record


@pytest.mark.parametrize(
    ("part", "kind", "key"),
    [
        (GrantEndsAt("cf_1", "sam@example.com", None), "casefile", "cf_1"),
        (EndFamily("fam_1"), "family", "fam_1"),
    ],
)
def test_what_changes_one_thing_is_alone_with_it(part: Condition | Record, kind: AboutKind, key: str):
    assert part.about == (About(kind, key, alone=True),)
