"""Transports: how frames travel between a session and its client."""
