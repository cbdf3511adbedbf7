"""The one table of verbs: every call that casekeeper offers, as data.

The doors bind a verb to the method that does it, the SDK sends its command and reads its result, `docs/api.md` and the
tests list it. A new verb is a row beside its noun, and a method in a room. Commands and results are named as text and loaded
with the first call that needs them, so that importing the table stays cheap.
"""

from collections.abc import Mapping

from casekeeper.verbs import casefiles, documents, identity, sessions
from casekeeper.verbs.verb import Verb

VERBS: Mapping[str, Verb] = {
    verb.name: verb for room in (sessions, casefiles, documents, identity) for verb in room.VERBS
}
"""By name."""
