"""`offline-researcher`: written rules in the place of a model. It finds mail and quotes it; it understands nothing.

It goes through the same toolset and the same corridor as a model, and needs no key. Each prompt stands for itself.
"""

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_core import to_json

from casekeeper.values import value

SEARCH, GET = "mail_search", "mail_get"

QUERY_MAX_CHARS = 300
SEARCH_LIMIT = 20
_READ_MAX = 3
_WORDS_MAX = 8
_RELAXED_MAX = 3
_SENTENCE_MAX_CHARS = 300

# `from:anna`, `subject:"annual report"`: someone who writes these knows the language.
_WRITTEN = re.compile(
    r"(?<!\S)-?(?:from|to|cc|bcc|subject|after|before|newer|older|newer_than|older_than|has|label|filename|larger"
    r"|smaller|is|in|category|list|kind|rfc822msgid):"
    r'(?:"[^"]*"|[^\s"]+)',
    re.IGNORECASE,
)
_PHRASE = re.compile(r'"([^"]*\w[^"]*)"')
_ADDRESS = r"[\w.%+-]+@[\w.-]*\w"
# A sender is an address or a capitalised name: "from Anna", never "from the bank" or "from 2023".
_SENDER = re.compile(rf"\b[Ff]rom\s+({_ADDRESS}|[A-Z][\w'-]*)")
_RECIPIENT = re.compile(rf"\b[Tt]o\s+({_ADDRESS})")
_YEAR = re.compile(r"\b(?:(since|before|until|after)\s+)?((?:19|20)\d\d)\b", re.IGNORECASE)
_WORD = re.compile(r"[\w][\w'’-]*")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")

_MONTHS = "january february march april may june july august september october november december"
_NOT_NAMES = frozenset(_MONTHS.split())
_COMMON = """\
a about after again all also am an and any anything are as at be because been before being between both but
by can could did do document documents does doing during each email emails every everything few find for
from further get give got had has have having he hello her here hers him his how i if in into is it its just
know letter letters list look mail mails may me message messages more most my no nor not now of on once only
or other our out over own please received regarding related say says search send sent she should show since
so some such summarise summarize summary tell than that the their them then there these they this those
through to too under until up us very want was we were what when where which while who whom why will with
within would written wrote year years you your"""
_STOP_WORDS = frozenset(_COMMON.split())


@value
class RelaxableQuery:
    """A query in parts, so that it can be relaxed: fixed terms, dates, and words, the first ones telling most."""

    fixed: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def query(self) -> str:
        """As the search tools take it."""
        return " ".join((*self.fixed, *self.words, *self.dates))[:QUERY_MAX_CHARS].strip()

    def relaxed(self) -> "RelaxableQuery | None":
        """The next wider search: without dates, then without the last word; None if nothing is left to leave out."""
        if self.dates and (self.words or self.fixed):
            return replace(self, dates=())
        if len(self.words) + len(self.fixed) > 1 and self.words:
            return replace(self, words=self.words[:-1])
        return None


def search_for(prompt: str) -> RelaxableQuery:
    """The search that a prompt asks for, by rules: operators and phrases as written, senders, years, telling words."""
    rest, fixed = prompt, list[str]()

    def take(pattern: re.Pattern[str], term: str = "{}") -> None:
        nonlocal rest
        for match in pattern.finditer(rest):
            found = match.group(match.lastindex or 0)
            if found.lower() not in _NOT_NAMES:
                fixed.append(term.format(found.rstrip(".,;:?!") if term != '"{}"' else found))
        rest = pattern.sub(" ", rest)

    take(_WRITTEN)
    take(_PHRASE, '"{}"')
    take(_SENDER, "from:{}")
    take(_RECIPIENT, "to:{}")
    dates, rest = _dates(rest)
    words = dict.fromkeys(w for w in _WORD.findall(rest) if len(w) > 1 and w.lower() not in _STOP_WORDS)
    return RelaxableQuery(tuple(dict.fromkeys(fixed)), dates, tuple(words)[:_WORDS_MAX])


def _dates(text: str) -> tuple[tuple[str, ...], str]:
    """`after:` and `before:` for the years in a text, and the text without them."""
    first = last = None
    for match in _YEAR.finditer(text):
        word, year = (match.group(1) or "").lower(), int(match.group(2))
        start = year + 1 if word == "after" else year
        end = year if word in ("before", "until") else year + 1
        if word not in ("before", "until"):
            first = min(first or start, start)
        if word not in ("since", "after"):
            last = max(last or end, end)
    after = (f"after:{first}/01/01",) if first else ()
    before = (f"before:{last}/01/01",) if last else ()
    return after + before, _YEAR.sub(" ", text)


def searches_for(prompt: str) -> list[RelaxableQuery]:
    """The search, and up to three wider ones to try when it finds nothing."""
    searches = [search_for(prompt)]
    while len(searches) <= _RELAXED_MAX and (wider := searches[-1].relaxed()):
        searches.append(wider)
    return searches


def rules() -> FunctionModel:
    """The rules in the shape of a model, so that they run as one does."""
    return FunctionModel(stream_function=_stream, model_name="rules")


async def _stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    asked = _step(*_this_turn(messages), {tool.name for tool in info.function_tools})
    if isinstance(asked, str):
        for line in asked.splitlines(keepends=True):
            yield line
        return
    for number, (name, arguments) in enumerate(asked):
        # The ids of a run's calls must differ; how many answers there were so far makes them so.
        call_id = f"call_{len(messages)}_{number}"
        yield {number: DeltaToolCall(name, to_json(arguments).decode(), tool_call_id=call_id)}


ToolRequest = tuple[str, dict[str, Any]]


def _step(prompt: str, returns: Sequence[ToolReturnPart], tools: set[str]) -> str | list[ToolRequest]:
    """What to do next in this turn: call tools, or answer."""
    if SEARCH not in tools:
        return f"I search with the tool {SEARCH}, which is not open here."
    searches = searches_for(prompt)
    tried = [part for part in returns if part.tool_name == SEARCH]
    if tried and tried[-1].outcome != "success":
        return f"The search failed: {_shown(tried[-1].model_response_str(wrap_if_error=False))}"
    found = _found(tried[-1]) if tried else []
    if not found:
        if len(tried) < len(searches):
            return [(SEARCH, {"query": searches[len(tried)].query, "limit": SEARCH_LIMIT})]
        tried_queries = ", ".join(f"`{search.query}`" for search in searches)
        return f"Nothing was found in this casefile. I searched for {tried_queries}."
    read = [part for part in returns if part.tool_name == GET]
    if not read and GET in tools:
        return [(GET, {"document_id": mail["document_id"]}) for mail in found[:_READ_MAX]]
    return _answer(searches[len(tried) - 1], found, {text[0]: text[1] for text in _texts(read)})


def _answer(search: RelaxableQuery, found: Sequence[dict[str, Any]], texts: dict[str, str]) -> str:
    count = "1 document" if len(found) == 1 else f"{len(found)} documents"
    if len(found) == SEARCH_LIMIT:
        count = f"{SEARCH_LIMIT} documents or more"
    lines = [f"Found {count} for `{search.query}`:" if search.query else f"Found {count}:"]
    for mail in found[:_READ_MAX]:
        document_id = mail["document_id"]
        title = _shown(_text(mail, "title")) or "(no subject)"
        text = texts.get(document_id) or _text(mail, "snippet")
        sentence = _best_sentence(text, search)
        lines.append(f"- [{document_id}] {title}" + (f" — {sentence}" if sentence else ""))
    if rest := [mail["document_id"] for mail in found[_READ_MAX:]]:
        lines.append("Also: " + ", ".join(f"[{document_id}]" for document_id in rest))
    return "\n".join(lines)


def _best_sentence(text: str, search: RelaxableQuery) -> str:
    """The sentence with most of the search's words; the first one where none has any."""
    wanted = {word.lower() for term in (*search.words, *search.fixed) for word in _WORD.findall(term)}
    sentences = [s for s in (_shown(m) for m in _SENTENCE.findall(text)) if len(s) > 2]

    def telling(sentence: str) -> int:
        return len(wanted.intersection(word.lower() for word in _WORD.findall(sentence)))

    return max(sentences, key=telling, default="")


def _this_turn(messages: Sequence[ModelMessage]) -> tuple[str, list[ToolReturnPart]]:
    """The user's last prompt and what tools returned since."""
    prompt, returns = "", list[ToolReturnPart]()
    for part in (part for m in messages if isinstance(m, ModelRequest) for part in m.parts):
        if isinstance(part, UserPromptPart):
            prompt, returns = part.content if isinstance(part.content, str) else "", []
        elif isinstance(part, ToolReturnPart):
            returns.append(part)
    return prompt, returns


def _found(part: ToolReturnPart) -> list[dict[str, Any]]:
    """The mails that a search returned; what does not look like one is left out."""
    messages = _object(part.content).get("messages")
    mails = [_object(m) for m in cast(list[Any], messages)] if isinstance(messages, list) else []
    return [mail for mail in mails if isinstance(mail.get("document_id"), str)]


def _texts(read: Sequence[ToolReturnPart]) -> Iterator[tuple[str, str]]:
    for part in read:
        mail = _object(part.content)
        yield _text(mail, "document_id"), _text(mail, "text")


def _object(value: Any) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _text(mail: dict[str, Any], key: str) -> str:
    value = mail.get(key)
    return value if isinstance(value, str) else ""


def _shown(text: str) -> str:
    """On one line, and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _SENTENCE_MAX_CHARS else line[: _SENTENCE_MAX_CHARS - 1] + "…"
