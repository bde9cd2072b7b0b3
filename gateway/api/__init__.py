"""The HTTP API: what a backend asks of the gateway, with Centrifugo's methods and names."""

from gateway.api.door import Door, api_routes, make_door
from gateway.api.methods import Api

__all__ = ["Api", "Door", "api_routes", "make_door"]
