"""The description of the API (OpenAPI 3.1), made from the types of its methods."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from gateway import __version__
from gateway.api.methods import METHODS
from gateway.codes import Error

_REF = "#/components/schemas/{name}"
_REFUSALS = {
    "400": "Not JSON, or of a wrong type.",
    "401": "No key, or a wrong one.",
    "413": "Larger than http_api.body_size_limit.",
}


@functools.cache
def describe() -> dict[str, Any]:
    """The whole document."""
    types = [kind for pair in METHODS.values() for kind in pair]
    schemas, components = msgspec.json.schema_components([*types, Error], ref_template=_REF)
    of_type = dict(zip([*types, Error], schemas, strict=True))
    error = {
        "type": "object",
        "properties": {"error": of_type[Error]},
        "required": ["error"],
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "fastws gateway", "version": __version__},
        "security": [{"key": []}],
        "paths": {
            f"/api/{name}": {"post": _operation(name, of_type[request], of_type[result], error)}
            for name, (request, result) in METHODS.items()
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
    }


def _operation(name: str, request: Any, result: Any, error: Any) -> dict[str, Any]:
    reply = {"type": "object", "properties": {"result": result}, "required": ["result"]}
    return {
        "operationId": name,
        "requestBody": {"required": True, "content": _content(request)},
        "responses": {
            "200": {
                "description": "The result, or why there is none.",
                "content": _content({"oneOf": [reply, error]}),
            },
            **{
                status: {"description": text, "content": _content(error)}
                for status, text in _REFUSALS.items()
            },
        },
    }


def _content(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
