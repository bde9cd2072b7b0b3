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
# Errors that have a status of their own, in the error mode "transport".
_BY_STATUS = {
    "404": "No such channel or method.",
    "416": "There is no such position.",
    "500": "A fault of the gateway or its engine.",
}
_ERROR_MODE = {
    "name": "X-Centrifugo-Error-Mode",
    "in": "header",
    "description": "`transport` gives errors a status of their own.",
    "schema": {"enum": ["transport"]},
}


@functools.cache
def describe(prefix: str = "/api") -> dict[str, Any]:
    """The whole document."""
    types = [kind for pair in METHODS.values() for kind in pair]
    schemas, components = msgspec.json.schema_components([*types, Error], ref_template=_REF)
    of_type = dict(zip([*types, Error], schemas, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {"title": "fastws gateway", "version": __version__},
        "security": [{"key": []}, {"query": []}],
        "paths": {
            f"{prefix}/{name}": {
                "parameters": [_ERROR_MODE],
                "post": _operation(name, of_type[request], of_type[result], of_type[Error]),
            }
            for name, (request, result) in METHODS.items()
        },
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "query": {"type": "apiKey", "in": "query", "name": "api_key"},
            },
        },
    }


def _operation(name: str, request: Any, result: Any, bare: Any) -> dict[str, Any]:
    reply, error = _object("result", result), _object("error", bare)
    # What is refused before the method, and what the method refuses where a status tells it.
    either = {"anyOf": [error, bare]}
    return {
        "operationId": name,
        "requestBody": {"required": True, "content": _content(request)},
        "responses": {
            "200": {
                "description": "The result, or why there is none.",
                "content": _content({"oneOf": [reply, error]}),
            },
            **{
                status: {"description": text, "content": _content(either)}
                for status, text in (_REFUSALS | _BY_STATUS).items()
            },
        },
    }


def _object(name: str, schema: Any) -> Any:
    return {"type": "object", "properties": {name: schema}, "required": [name]}


def _content(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
