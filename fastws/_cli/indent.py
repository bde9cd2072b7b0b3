"""JSON, laid out to be read, with nothing in it changed."""

from __future__ import annotations

import json
import re
from typing import Final

__all__ = ["indented"]

_DEEPEST: Final = 100  # what nests deeper would be mostly spaces

_find_surrogate = re.compile("[\ud800-\udfff]").search

# Of a text that is known to be JSON: strings, punctuation, and numbers and names.
_find_tokens = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+').findall


def indented(message: str | bytes) -> str | bytes:
    """``message`` with the structure of its JSON, if it is JSON.

    Escapes in strings are shown as the characters they stand for. Numbers and names that are there
    twice stay as they are, which they would not if it were parsed and written anew.
    """
    try:
        text = message if isinstance(message, str) else message.decode()
        json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return message
    pieces: list[str] = []
    before = ""
    depth = 0
    for token in _find_tokens(text):
        closes = token in ("]", "}")
        opened = before in ("[", "{")
        depth -= closes
        if before == "," or opened != closes:
            pieces.append("\n" + "  " * depth)
        pieces.append(_readable(token))
        if token == ":":
            pieces.append(" ")
        depth += token in ("[", "{")
        if depth > _DEEPEST:
            return message
        before = token
    return "".join(pieces)


def _readable(token: str) -> str:
    if not token.startswith('"') or "\\" not in token:
        return token
    shown = json.dumps(json.loads(token), ensure_ascii=False)
    # Half of a surrogate pair may stand in an escape (RFC 8259 8.2), and is no character.
    return token if _find_surrogate(shown) else shown
