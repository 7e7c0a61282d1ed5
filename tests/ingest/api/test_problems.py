"""Refusals of the documents API are what its OpenAPI document says they are."""

import pytest

from tests.ingest.staff import Staff

pytestmark = pytest.mark.anyio


async def test_a_refused_method_gets_the_allowed_methods(staff: Staff) -> None:
    refused = await staff.http.request("PUT", "/v1/documents/a", headers=staff.headers())
    assert refused.status_code == 405
    assert {"GET", "DELETE"} <= set(refused.headers["allow"].split(", "))
    document = (await staff.http.get("/openapi.json")).json()
    documented = document["paths"]["/v1/documents/{document_id}"]["get"]["responses"]["default"]["content"]
    assert set(documented["application/problem+json"]["schema"]["required"]) <= set(refused.json())


async def test_an_empty_name_is_no_document_and_not_the_list_of_all(staff: Staff) -> None:
    refused = await staff.http.get("/v1/documents/", headers=staff.headers(), follow_redirects=True)
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
