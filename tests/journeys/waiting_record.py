"""What must hold of the record when everything has ended, whatever happened to the servers meanwhile."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from casekeeper.verify import Report, verify
from tests.journeys.support import Json
from tests.journeys.waiting import Site
from tests.journeys.waiting_tools import SENT, parking
from tests.support import open_test_server, stored

_ENDS = {"succeeded", "failed", "cancelled", "timed_out", "interrupted", "denied"}


@dataclass(frozen=True)
class Record:
    """The record's facts, in order within each session, and what else is looked at.

    `told`: what was acknowledged, by request id. `sent`: what left the house, by the event id of the call that sent it.
    `log`: what the servers have said of themselves.
    """

    facts: Sequence[Json]
    report: Report
    left_open: Sequence[str]
    sent: Counter[str]
    log: Sequence[str]
    told: Mapping[str, Json] = field(default_factory=dict[str, Json])

    def of(self, kinds: set[str]) -> dict[str, list[Json]]:
        """Facts of operations of these kinds, by event id."""
        found: dict[str, list[Json]] = defaultdict(list)
        for fact in self.facts:
            if fact["kind"] in kinds and "operation_name" in fact:
                found[fact["event_id"]].append(fact)
        return found

    @property
    def starts(self) -> dict[str, list[Json]]:
        """The facts that open operations."""
        return self.of({"started"})

    @property
    def ends(self) -> dict[str, list[Json]]:
        """The facts that end operations, refused ones too."""
        return self.of(_ENDS)

    def end(self, event_id: str) -> tuple[str, str | None]:
        """How one operation ended: kind, and type of the error."""
        [fact] = self.ends[event_id]
        return fact["kind"], fact.get("error_type")


async def record_of(site: Site, told: Mapping[str, Json] | None = None) -> Record:
    """The record of a site whose servers have all gone."""
    assert not site.servers
    lines: list[bytes] = []
    search = site.data / "search.db"
    async with open_test_server(site.data, store=site.store, search=search) as server:
        left = [row[0] for row in await stored(server, "open_operations", "event_id")]
        for session_id, casefile_id in await stored(server, "sessions", "session_id", "casefile_id"):
            lines += [line async for line in server.sessions.recording.of_session(casefile_id, session_id)]
    read = [json.loads(line) for line in lines]
    facts = [{**one["header"], "payload": json.loads(one["payload"] or "null")} for one in read]
    sent = Counter(line[0] for line in site.lines(SENT))
    log = site.log.read_text().splitlines() if site.log.exists() else []
    return Record(facts, verify(lines), left, sent, log, told or {})


def every_operation_has_one_start_and_one_end(found: Record) -> list[str]:
    starts, ends = found.starts, found.ends
    refused = {event_id for event_id, facts in ends.items() if facts[0]["kind"] == "denied"} - starts.keys()
    wrong = [one for one, facts in (starts | ends).items() if len(facts) > 1]
    return [
        *wrong,
        *starts.keys() - ends.keys() - set(found.left_open),
        *ends.keys() - starts.keys() - refused,
    ]


def the_chains_verify(found: Record) -> list[str]:
    return [f"{f.session_id} {f.seq} {f.kind}: {f.message}" for f in found.report.findings]


def nothing_stays_open(found: Record) -> list[str]:
    return list(found.left_open)


def nothing_that_parks_was_interrupted(found: Record) -> list[str]:
    interrupted = found.of({"interrupted"})
    return [one for one, (fact, *_) in interrupted.items() if fact["operation_name"] in parking()]


def what_succeeded_was_sent_once(found: Record) -> list[str]:
    posted = {one for one, [fact, *_] in found.of({"succeeded"}).items() if fact["operation_name"] == "posts"}
    return [one for one in posted if found.sent[one] != 1]


def nothing_was_sent_twice_or_without_a_start(found: Record) -> list[str]:
    return [one for one, times in found.sent.items() if times > 1 or one not in found.starts]


def no_call_with_a_key_started_twice(found: Record) -> list[str]:
    keyed = Counter(
        (facts[0]["parent_event_id"], facts[0]["request_id"])
        for facts in found.starts.values()
        if "parent_event_id" in facts[0]
    )
    return [f"{parent} {key}" for (parent, key), times in keyed.items() if times > 1]


def no_call_was_asked_again_after_it_had_succeeded(found: Record) -> list[str]:
    """By what was sent, whatever keys it was asked under."""
    asked: dict[str, list[Json]] = defaultdict(list)
    for event_id, facts in found.starts.items():
        if facts[0]["operation_name"] == "posts":
            asked[facts[0]["payload"]["inputs"]["key"]] += found.ends.get(event_id, [])
    return [key for key, ends in asked.items() if "succeeded" in [fact["kind"] for fact in ends[:-1]]]


def no_operation_outlives_the_one_around_it(found: Record) -> list[str]:
    starts, ends = found.starts, found.ends
    wrong: list[str] = []
    for event_id, [start, *_] in starts.items():
        around = start.get("parent_event_id")
        if around is None or event_id not in ends:
            continue
        begins = starts[around][0]["seq"] < start["seq"]
        # What still waits around it has no end yet.
        is_inside = around not in ends or ends[event_id][0]["seq"] < ends[around][0]["seq"]
        wrong += [] if begins and is_inside else [event_id]
    return wrong


def no_request_started_twice(found: Record) -> list[str]:
    top = [facts[0] for facts in found.starts.values() if "parent_event_id" not in facts[0]]
    times = Counter(fact["request_id"] for fact in top)
    return [request_id for request_id in found.told if times[request_id] != 1]


def what_was_acknowledged_is_on_the_record(found: Record) -> list[str]:
    return [request_id for request_id, told in found.told.items() if not _says_the_same(found, told)]


def _says_the_same(found: Record, told: Json) -> bool:
    [fact] = found.ends.get(told["event_id"], [None])
    if fact is None:
        return False
    kind = "succeeded" if told["success"] else None
    return (kind in (None, fact["kind"])) and fact["payload"].get("outputs") == told["outputs"]


def the_servers_tell_of_no_fault(found: Record) -> list[str]:
    """What is wrong with the world is a warning, in one line."""
    return [line for line in found.log if "Traceback" in line or " ERROR " in line or " CRITICAL " in line]


INVARIANTS: tuple[Callable[[Record], list[str]], ...] = (
    every_operation_has_one_start_and_one_end,
    the_chains_verify,
    nothing_stays_open,
    nothing_that_parks_was_interrupted,
    what_succeeded_was_sent_once,
    nothing_was_sent_twice_or_without_a_start,
    no_call_with_a_key_started_twice,
    no_call_was_asked_again_after_it_had_succeeded,
    no_operation_outlives_the_one_around_it,
    no_request_started_twice,
    what_was_acknowledged_is_on_the_record,
    the_servers_tell_of_no_fault,
)


def broken(found: Record, *but: Callable[[Record], list[str]]) -> dict[str, list[str]]:
    """Which invariants do not hold, and where; `but` are those that a story does not end with."""
    return {rule.__name__: wrong for rule in INVARIANTS if rule not in but and (wrong := rule(found))}
