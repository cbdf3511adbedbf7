"""HTML as the text that its reader sees."""

import re
from functools import partial
from typing import Final

from casekeeper.reading.clean import TEXT_MAX_CHARS, tolerant

# Without its tags; mail programs show no more than some 100 KiB.
_MARKUP_MAX_CHARS: Final = 2 * TEXT_MAX_CHARS
_MARKUP_PIECE_CHARS: Final = 64 * 1024

# A quoted value that holds a "<" is left to the HTML parser; so this never reads a character twice.
_REST = r"""(?![a-z0-9:-])(?:[^<>"']|"[^"<]*"|'[^'<]*')*+>"""
_BLOCKS = (
    "address|article|blockquote|body|br|caption|center|d[dlt]|div|footer|form|h[1-6r]|header|li|main|[ou]l|option"
    "|p|pre|section|table|t(?:body|foot|head|r)"
)
# What is no text stays for the parser, without attributes; one pass for each kind, for none of which Python is asked.
_PASSES: Final = tuple(
    (re.compile(tag + _REST, re.IGNORECASE), gap)
    for tag, gap in (
        ("<(/?(?:script|style|title))", r"<\1>"),
        (f"</?(?:{_BLOCKS})", "\n"),
        ("</?t[dh]", " "),
        ("</?(?!(?:script|style|title)>)[a-z][a-z0-9:-]*+", ""),
    )
)


def text_of_markup(markup: str, problems: list[str]) -> str:
    """The text, one line per block; empty where there is none."""
    # Tags go first: pictures written into them may be megabytes, and the parser needs quadratic time for deep
    # nesting. It is left with scripts, comments, entities and whatever is malformed.
    bare = tolerant(partial(_without_tags, " ".join(markup.split())), "")
    if len(bare) > _MARKUP_MAX_CHARS:
        problems.append("Its HTML is longer than 2 MiB; the rest is left out.")
    return tolerant(partial(_without_markup, bare[:_MARKUP_MAX_CHARS]), "")


def _without_tags(markup: str) -> str:
    for tag, gap in _PASSES:
        markup = tag.sub(gap, markup)
    return markup


def _without_markup(bare: str) -> str:
    """The text that a reader of the HTML sees, one line per block."""
    from selectolax.lexbor import LexborHTMLParser

    texts: list[str] = []
    start = 0
    while start < len(bare):
        # In pieces: what is quadratic in the parser stays small.
        end = start + _MARKUP_PIECE_CHARS
        if end < len(bare) and (tag := bare.rfind("<", start + 1, end)) > 0:
            end = tag
        tree = LexborHTMLParser(bare[start:end])
        tree.strip_tags(["script", "style", "title"])
        texts.append(tree.text())
        start = end
    lines = (" ".join(line.split()) for line in "".join(texts).splitlines())
    return "\n".join(line for line in lines if line)
