"""Measures `fastws` and the gateway beside other WebSocket servers and beside bare C."""
