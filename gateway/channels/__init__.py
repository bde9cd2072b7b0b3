"""Channels: what their names mean, who may do what in them, and what a client missed."""

from gateway.channels.filters import BadFilter, TagFilter
from gateway.channels.rules import ChannelRules

__all__ = ["BadFilter", "ChannelRules", "TagFilter"]
