"""The description is one by the letter of OpenAPI 3.1, and no request makes the API fail, whatever it says."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.testclient import TestClient

from tests.gateway.conftest import Places
from tests.gateway.web.api.conftest import SCHEMA
from tests.support import api_reference
from tests.support.examples import examples
from wgpy.gateway.store import audit
from wgpy.gateway.web.site import Site

OPERATIONS = [
    (method, path) for path, each in sorted(SCHEMA["paths"].items()) for method in each if not path.endswith("/check")
]
FIELDS = sorted({name for each in SCHEMA["components"]["schemas"].values() for name in each.get("properties", ())})

names = st.sampled_from(
    ["alice", "staff", "ops", "phone", "web", "corp", "10.50.0.0/16", "10.99.0.2", "::/0", "nobody"]
)
odd = st.sampled_from(["", "\0", "a\0b", "\ud800", "\x1b[2J", "a\nb", "%", "10.0.0.0/8:1-2/tcp", "-", "é"])
texts = names | st.text(max_size=20) | odd
numbers = st.integers(-(1 << 70), 1 << 70)
values: st.SearchStrategy[Any] = st.recursive(
    texts | st.none() | st.booleans() | numbers | st.floats(allow_nan=True),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
bodies = st.none() | values | st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)


@pytest.fixture
def places(both_kinds: Places) -> Places:
    """PostgreSQL refuses texts and numbers that SQLite takes, and the other way round."""
    return both_kinds


def body_for(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Bodies that have the right fields, with values that mostly have the right type."""
    by_type = {
        "string": texts, "boolean": st.booleans(), "integer": st.integers(-1, 1 << 40), "number": st.floats(0, 1e12),
        "array": st.lists(texts, max_size=3), "null": st.none(), "object": st.dictionaries(texts, texts, max_size=2),
    }  # fmt: skip

    def value(of: dict[str, Any]) -> st.SearchStrategy[Any]:
        return st.one_of(*(by_type.get(each.get("type", "object"), values) for each in of.get("anyOf", [of])), values)

    needed = {name: value(schema["properties"][name]) for name in schema.get("required", ())}
    other = {name: value(of) for name, of in schema["properties"].items() if name not in needed}
    return st.fixed_dictionaries(needed, optional=other)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes]:
    method, path = draw(st.sampled_from(OPERATIONS))
    operation = SCHEMA["paths"][path][method]
    wanted = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    named = SCHEMA["components"]["schemas"].get(wanted.get("$ref", "").rpartition("/")[2])
    content = json.dumps(draw(body_for(named) if named and draw(st.booleans()) else bodies)).encode()
    for part in ("{name}", "{network}", "{device}"):
        path = path.replace(part, quote(draw(texts), safe="", errors="surrogatepass") or "x")
    parameters = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
    query = {name: draw(texts | numbers) for name in parameters if draw(st.booleans())}
    return method, f"{path}?{urlencode(query, errors='surrogatepass')}", content


def test_the_description_is_valid() -> None:
    OpenAPIV31SpecValidator(json.loads(json.dumps(SCHEMA))).validate()


def test_the_reference_is_what_the_description_says() -> None:
    assert api_reference.PAGE.read_text() == api_reference.written(), "run python -m tests.support.api_reference"


def test_everything_is_described() -> None:
    for path, each in SCHEMA["paths"].items():
        for method, operation in each.items():
            assert operation.get("summary"), (method, path)
            assert operation["description"].endswith("."), (method, path)
            assert "422" not in operation["responses"]
            assert operation["responses"]["404"]["content"]["application/problem+json"]
    for name, schema in SCHEMA["components"]["schemas"].items():
        assert schema.get("description") or name.startswith(("Page", "Problem")), name


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=requests())
def test_no_request_makes_it_fail_and_what_it_refuses_changes_nothing(
    request: tuple[str, str, bytes], admin: TestClient, site: Site
) -> None:
    method, path, content = request
    before = changes(site)
    answer = admin.request(method, path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 201, 204, 400, 404, 405, 409, 503}, (answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert set(answer.json()) == {"title", "status", "detail"}
        assert changes(site) == before


def changes(site: Site) -> int:
    with site.database.read() as connection:
        return int(audit.find_last(connection, 1)[0]["id"])


def test_the_document_is_served_to_programs_only(admin: TestClient, client: TestClient) -> None:
    assert admin.get("/openapi.json").json() == json.loads(json.dumps(SCHEMA))
    assert client.get("/api/v1/openapi.json").status_code == 401
    assert admin.get("/docs").status_code == 404
