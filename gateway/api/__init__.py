"""The HTTP API: what a backend asks of the gateway, with Centrifugo's methods and names."""

from gateway.api.door import api_routes
from gateway.api.methods import Api

__all__ = ["Api", "api_routes"]
