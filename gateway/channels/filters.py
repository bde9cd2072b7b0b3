"""Filters over the tags of publications, which a client may attach to its subscription.

A filter is a tree: inner nodes are ``and``, ``or`` and ``not`` of ``nodes``; a leaf compares the
tag ``key`` with ``val`` or ``vals``. Names are those of the Centrifuge protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation

import msgspec
from msgspec import Struct

# Bounds of one filter: it is evaluated for each publication.
MAX_NODES = 64
MAX_DEPTH = 8

# What each comparison is with; the others are with nothing.
_OPERANDS = {
    **dict.fromkeys(("eq", "neq", "sw", "ew", "ct", "lt", "lte", "gt", "gte"), "val"),
    **dict.fromkeys(("in", "nin"), "vals"),
}

_Test = Callable[[Mapping[str, str]], bool]


class BadFilter(Exception):
    """A filter that means nothing. The text says where."""


class FilterNode(Struct, gc=False, omit_defaults=True):
    """A filter as it is on the wire."""

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: list[str] = []
    nodes: list[FilterNode] = []


class TagFilter:
    """A filter that can be asked. Equal filters are equal, so that their subscribers share one."""

    __slots__ = ("_test", "source")

    def __init__(self, root: FilterNode) -> None:
        """Raises `BadFilter`."""
        self.source = msgspec.json.encode(root)
        self._test = _compile(root, 0, [MAX_NODES])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TagFilter) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def accepts(self, tags: Mapping[str, str] | None) -> bool:
        """Whether a publication with these tags is wanted."""
        return self._test(tags or {})


def _compile(node: FilterNode, depth: int, left: list[int]) -> _Test:
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH:
        raise BadFilter(f"a filter has at most {MAX_NODES} nodes and {MAX_DEPTH} levels")
    if not node.op:
        return _leaf(node)
    inner = [_compile(child, depth + 1, left) for child in node.nodes]
    if node.op == "and" and inner:
        return lambda tags: all(test(tags) for test in inner)
    if node.op == "or" and inner:
        return lambda tags: any(test(tags) for test in inner)
    if node.op == "not" and len(inner) == 1:
        return lambda tags: not inner[0](tags)
    raise BadFilter(f"op {node.op[:20]!r} with {len(inner)} nodes")


def _leaf(node: FilterNode) -> _Test:
    key, val, vals = node.key, node.val, frozenset(node.vals)
    if not key:
        raise BadFilter("a comparison needs a key")
    operand = _OPERANDS.get(node.cmp)
    if (val != "", bool(vals)) != (operand == "val", operand == "vals"):
        raise BadFilter(f"cmp {node.cmp[:20]!r} goes with {operand or 'no value'}")
    match node.cmp:
        case "eq":
            return lambda tags: tags.get(key) == val
        case "neq":
            return lambda tags: tags.get(key) != val
        case "in":
            return lambda tags: tags.get(key) in vals
        case "nin":
            return lambda tags: tags.get(key) not in vals
        case "ex":
            return lambda tags: key in tags
        case "nex":
            return lambda tags: key not in tags
        case "sw":
            return lambda tags: tags.get(key, "").startswith(val) and key in tags
        case "ew":
            return lambda tags: tags.get(key, "").endswith(val) and key in tags
        case "ct":
            return lambda tags: val in tags.get(key, "") and key in tags
        case "lt" | "lte" | "gt" | "gte":
            return _number_test(key, node.cmp, val)
    raise BadFilter(f"cmp {node.cmp[:20]!r}")


_COMPARE: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
}

_MAX_DIGITS = 64


def _number(text: str) -> Decimal | None:
    if len(text) > _MAX_DIGITS:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _number_test(key: str, cmp: str, val: str) -> _Test:
    bound = _number(val)
    if bound is None:
        raise BadFilter(f"{cmp} needs a number")
    compare = _COMPARE[cmp]

    def test(tags: Mapping[str, str]) -> bool:
        number = _number(tags.get(key, ""))
        return number is not None and compare(number, bound)

    return test
