"""The description of the API (OpenAPI 3.1), made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stream_app.stages.clean import MAX_ID_CHARS
from stream_app.web.calls import Route
from stream_app.web.problems import PROBLEM_JSON, ProblemDetails

REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")


def description(routes: Sequence[Route]) -> dict[str, Any]:
    """The document, as plain values."""
    named = [part for route in routes for part in (route.answer, route.body) if part is not None]
    schemas, components = msgspec.json.schema_components([ProblemDetails, *named], ref_template=REF)
    by_type = dict(zip(map(repr, [ProblemDetails, *named]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sliceflow", "version": "1", "description": "Lists that follow events."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, by_type: dict[str, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "Done."}
    if route.answer is not None:
        good["content"] = {route.content_type: {"schema": by_type[repr(route.answer)]}}
    else:
        good["content"] = {route.content_type: {"schema": {"type": "string"}}}
    problem = {
        "description": "It went wrong: the body says what was seen, what was expected, and what mends it.",
        "content": {PROBLEM_JSON: {"schema": by_type[repr(ProblemDetails)]}},
    }
    made: dict[str, Any] = {
        "summary": route.summary,
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": {str(route.status): good, "default": problem},
        "security": [] if route.is_public else [{}, {"token": []}],
    }
    if route.body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": by_type[repr(route.body)]}}}
    return made


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    schema = {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in _PARAMETER.findall(route.path)]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = msgspec.json.schema(route.query)["$defs"][route.query.__name__]
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": form}
        for name, form in schema["properties"].items()
    ]
