"""The OpenAPI document is complete and valid, and its pages work offline."""

import re
from io import StringIO

import pytest
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator

from smartflow.api.codes import AUTHENTICATION_CODES, CODES
from tests.integration.api.openapi_reading import operations, resolve

PAGES = ["/api/docs/", "/api/redoc/"]


@pytest.fixture(scope="module")
def document():
    return SchemaGenerator().get_schema(request=None, public=True)


def codes_of(document, operation, status):
    schema = resolve(document, operation["responses"][status])["content"]["application/json"]["schema"]
    return set(schema["allOf"][1]["properties"]["status"]["enum"])


def test_the_document_generates_without_a_warning_and_is_valid():
    out = StringIO()
    call_command("spectacular", "--fail-on-warn", "--validate", stdout=out)
    assert "/api/v1/user/login" in out.getvalue()


def test_every_route_documents_its_error_codes_below_the_status_they_have(document):
    found = [(name, op) for name, op in operations(document, prefix="/api/v1/") if not name.endswith("/health")]
    assert len(found) >= 8
    for name, operation in found:
        assert codes_of(document, operation, "500") == {"500"}, name
        assert "50300" in codes_of(document, operation, "503"), name
        for status in operation["responses"]:
            if int(status) >= 400:
                assert {CODES[code].http_status for code in codes_of(document, operation, status)} == {int(status)}, (
                    name
                )


def test_every_route_that_needs_a_token_documents_the_token_codes(document):
    found = [(name, op) for name, op in operations(document, prefix="/api/v1/") if {} not in op["security"]]
    assert len(found) >= 5
    for name, operation in found:
        assert operation["security"] == [{"accessToken": []}], name
        assert set(AUTHENTICATION_CODES) <= codes_of(document, operation, "401"), name


def test_a_success_is_documented_in_its_envelope(document):
    me = document["paths"]["/api/v1/user/me"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    logout = document["paths"]["/api/v1/user/logout"]["post"]["responses"]["200"]["content"]["application/json"]
    assert me["required"] == ["status", "info", "data"]
    assert me["properties"]["status"]["enum"] == ["10000"]
    assert logout["schema"]["required"] == ["status", "info"]


@pytest.mark.parametrize("page", PAGES)
def test_a_docs_page_loads_nothing_from_another_host(anonymous, page):
    html = anonymous.get(page).content.decode()
    links = re.findall(r"""(?:src|href|spec-url)=["']([^"']+)""", html)
    assert links
    assert not re.search(r"""["'(](?:https?:)?//""", html)
    for link in links:
        answer = anonymous.get(link)
        assert answer.status_code == 200, link
        # Read to its end a file closes itself; closing it by hand would look at the database's connection.
        assert answer.getvalue(), link


@pytest.mark.parametrize("page", PAGES)
def test_a_docs_page_tells_the_browser_to_ask_no_other_host(anonymous, page):
    policy = anonymous.get(page)["Content-Security-Policy"]
    assert "connect-src 'self'" in policy
    assert "http" not in policy


def test_the_root_leads_to_the_page(anonymous):
    answer = anonymous.get("/")
    assert (answer.status_code, answer["Location"]) == (302, "/app/")
