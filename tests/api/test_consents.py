"""Programs record consents, each once, and read what proves that a recipient asked for mail."""

from __future__ import annotations

from typing import Any

from postroad.settings import AccessRole
from tests.api.installation import Installation
from tests.api.server import an_api_server

ADA = "ada@example.org"
FORM = "https://example.org/newsletter"
GIVEN: dict[str, Any] = {
    "address": "Ada@Example.org",
    "audience": "customers",
    "given_at": "2025-05-01T09:30:00+02:00",
    "source": FORM,
    "ip": "192.0.2.7",
    "wording": "Yes, weekly.",
    "confirmation": "<1@acme.dev>",
}


async def test_a_repeated_call_records_nothing_more(installation: Installation) -> None:
    installation.add_members(ADA)
    async with an_api_server(installation) as api, api.client(AccessRole.SEND) as http:
        first = await http.post("/consents", json={"consents": [GIVEN]})
        assert (first.status_code, first.json()) == (200, {"recorded": 1, "known": 0, "errors": []})
        again = await http.post("/consents", json={"consents": [GIVEN, GIVEN | {"given_at": "2025-05-01T07:30:00Z"}]})
        assert again.json() == {"recorded": 0, "known": 2, "errors": []}
        found = (await http.get(f"/recipients/{ADA}/consents", params={"limit": 1})).json()
        assert found["items"][0] == {
            **GIVEN,
            "address": ADA,
            "given_at": "2025-05-01T07:30:00Z",
            "line": None,
            "recorded_at": found["items"][0]["recorded_at"],
            "recorded_by": "API key key-send",
        }
        following = (await http.get(f"/recipients/{ADA}/consents", params={"cursor": found["next"]})).json()
        [imported] = following["items"]
        assert (imported["line"], imported["given_at"], following["next"]) == (2, None, None)
        listed = (await http.get("/audiences/customers/consents", params={"source": FORM})).json()
        assert [row["source"] for row in listed["items"]] == [FORM]
        assert (await http.get("/audiences/customers/consents", params={"source": "x"})).json()["items"] == []
    assert installation.count("consent") == 1


async def test_what_is_not_valid_is_named_and_the_rest_is_recorded(installation: Installation) -> None:
    installation.add_members(ADA)
    wrong = [
        {"address": "nowhere"},
        {"audience": "nobodies"},
        {"given_at": "2999-01-01T00:00:00Z"},
        {"ip": "1.2.3"},
        {"source": " "},
    ]
    async with an_api_server(installation) as api, api.client(AccessRole.SEND) as http:
        done = await http.post("/consents", json={"consents": [*(GIVEN | one for one in wrong), GIVEN]})
        assert done.status_code == 200
        answer = done.json()
        assert (answer["recorded"], answer["known"]) == (1, 0)
        named = [(error["index"], error["field"]) for error in answer["errors"]]
        assert named == list(enumerate(field for one in wrong for field in one))
    assert installation.count("consent") == 1


async def test_who_may_only_view_records_nothing(installation: Installation) -> None:
    installation.add_members(ADA)
    async with an_api_server(installation) as api, api.client(AccessRole.VIEW) as http:
        assert (await http.post("/consents", json={"consents": [GIVEN]})).status_code == 403
        assert (await http.get(f"/recipients/{ADA}/consents")).status_code == 200
        assert (await http.get("/recipients/eve@example.org/consents")).status_code == 404
        assert (await http.get("/audiences/none/consents")).status_code == 404
    assert installation.count("consent") == 0
