"""Pieces of HTTP's grammar that several parsers need, as predicates on bytes."""

from __future__ import annotations

import re

__all__ = ["is_field_value", "is_token"]

is_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch  # RFC 9110 5.6.2
is_field_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch  # RFC 9110 5.5
