"""The Centrifuge client protocol in JSON, as Centrifugo's client SDKs speak it."""

from gateway.protocols.centrifuge.protocol import CentrifugeJson

__all__ = ["CentrifugeJson"]
