"""Writes docs/reference/gateway-api.md, from the API's own description: python -m tests.support.api_reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from wgpy.gateway.policy.tokens import SCOPES
from wgpy.gateway.web.api.app import PREFIX, application

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "gateway-api.md"
_INTRODUCTION: Final = """\
# The gateway's REST API

<!-- Written by python -m tests.support.api_reference. -->

{description}

[How to use it](../how-to/gateway.md#the-api). Paths are below `{prefix}`; `{prefix}/openapi.json` says the same as
OpenAPI 3.1, for programs that make clients.

| scope | what a token with it may do |
|---|---|
{scopes}

Long lists come in pages, `?page=1&size=50` with up to 1000 objects:
`{{"items": [...], "page": 1, "pages": 3, "total": 120}}`.
"""


def written() -> str:
    """The text of the page."""
    schema = application().openapi()
    scopes = "\n".join(f"| `{scope}` | {what} |" for scope, what in SCOPES.items())
    description = schema["info"]["description"]
    parts = [_INTRODUCTION.format(description=description, prefix=PREFIX, scopes=scopes)]
    operations = [(method, path, each) for path, found in schema["paths"].items() for method, each in found.items()]
    for tag in dict.fromkeys(operation["tags"][0] for _, _, operation in operations):
        of = [each for each in operations if each[2]["tags"] == [tag]]
        parts.append("\n".join(_section(tag, of, schema["components"]["schemas"])))
    return "\n".join(parts)


def _section(tag: str, operations: list[tuple[str, str, Any]], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {tag[0].upper()}{tag[1:]}\n"
    yield "| request | scope | what it does | body | answer |"
    yield "|---|---|---|---|---|"
    shown: dict[str, None] = {}
    for method, path, operation in operations:
        (((_, (scope,)),),) = [each.items() for each in operation["security"]]
        asked = [each for each in operation.get("parameters", ()) if each["in"] == "query"]
        query = ", ".join(f"`{each['name']}`" for each in asked if each["name"] not in ("page", "size"))
        what = " ".join(operation["description"].split()) + (f" Query: {query}." if query else "")
        body = _name(operation.get("requestBody", {}))
        answer = next((_name(each) for status, each in operation["responses"].items() if status < "300"), "")
        shown |= dict.fromkeys(filter(None, (body, answer.partition(" ")[0])))
        yield f"| `{method.upper()} {path}` | `{scope}` | {what} | {body} | {answer} |"
    for name in shown:
        if name in schemas:
            yield from _object(name, schemas[name])
    yield ""


def _object(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n**{name}**: {schema['description']}\n"
    yield "| field | type | what it is |"
    yield "|---|---|---|"
    for field, of in schema["properties"].items():
        needed = "Needed." if name.startswith(("New", "Foreign")) and field in schema.get("required", ()) else ""
        yield f"| `{field}` | {_type(of)} | {' '.join(filter(None, (of.get('description'), needed)))} |"


def _name(content: Mapping[str, Any]) -> str:
    """The name of the object that a request or an answer has; of a page or list of them, the name and which."""
    schema = content.get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("type") == "array":
        return f"{_reference(schema['items'])} (list)"
    name = _reference(schema)
    return f"{name[5:-1]} (page)" if name.startswith("Page_") else name


def _reference(schema: Mapping[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return _reference(schema) or str(schema.get("type", "any"))


if __name__ == "__main__":
    PAGE.write_text(written())
