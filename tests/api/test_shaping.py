"""A program reads why a sender is slow, undoes it, and sets a cap of a warmup."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa

from postroad.settings import AccessRole, Settings
from postroad.store.engine import read, write
from postroad.store.shaping import ShapingChange, add_change
from postroad.store.warmup import days_of, overrides_of
from postroad.warmup.caps import providers
from tests.api.installation import Installation
from tests.api.server import ApiServer

AT = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)


def slow_down(installation: Installation, number: int) -> list[str]:
    """Open changes of gates of the sender. Returns the gates, the newest first."""
    names = sorted(providers())[:number]
    gates = [f"provider:{name}:shop@example.com" for name in names]
    with write(installation.engine) as connection:
        for place, (name, gate) in enumerate(zip(names, gates, strict=True)):
            change = ShapingChange(
                gate=gate,
                rule="too-fast",
                sender="shop@example.com",
                provider=name,
                reply="421 slow down",
                at=AT + timedelta(minutes=place),
                rate_count=1.0,
                rate_per_ms=60_000,
            )
            assert add_change(connection, change)
    return gates[::-1]


async def test_changes_are_listed_by_pages_and_undone_by_their_gates(api: ApiServer) -> None:
    gates = slow_down(api.installation, 5)
    found, parameters = [], {"limit": "2"}
    async with api.client(AccessRole.OPERATE) as http:
        while True:
            page = (await http.get("/shaping/changes", params=parameters)).raise_for_status().json()
            found += page["items"]
            if page["next"] is None:
                break
            parameters["cursor"] = page["next"]
        assert [row["gate"] for row in found] == gates
        assert {row["reply"] for row in found} == {"421 slow down"}
        assert all(row["is_open"] for row in found)
        undone = await http.post("/gates/resume", json={"gate": gates[0]})
        assert undone.status_code == 200, undone.text
        [newest, *others] = (await http.get("/shaping/changes")).json()["items"]
        assert (newest["is_open"], newest["restored_by"]) == (False, "key key-operate")
        assert all(row["is_open"] for row in others)
        of_another = await http.get("/shaping/changes", params={"sender": "other@example.com"})
        assert of_another.json() == {"items": [], "next": None}


async def test_a_cap_is_set_for_all_identities_of_the_sender(api: ApiServer) -> None:
    installation = api.installation
    path = installation.folder / "postroad.toml"
    warm = 'route = "relay"\n[senders.shop.warmup]\npreset = "curve"\n'
    path.write_text(path.read_text().replace('route = "relay"\n', warm))
    installation.context.settings = Settings.load(path)
    wanted = {"identity": "shop@example.com", "provider": "google", "cap": 1_234, "why": "agreed with the provider"}
    async with api.client(AccessRole.OPERATE) as http:
        answer = await http.post("/warmup/caps", json=wanted)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["provider"], answer.json()["cap"]) == ("google", 1_234)
        names = answer.json()["identities"]
        assert "shop@example.com" in names
        for wrong in ({"identity": "none"}, {"provider": "none"}):
            assert (await http.post("/warmup/caps", json={**wanted, **wrong})).status_code == 404
        for invalid in ({"cap": 0}, {"cap": 10**10}, {"why": ""}):
            assert (await http.post("/warmup/caps", json={**wanted, **invalid})).status_code == 422
    with read(installation.engine) as connection:
        assert {row.cap for row in days_of(connection, names, since=date.min) if row.provider == "google"} == {1_234}
        assert {(row.by, row.why) for row in overrides_of(connection, names)} == {("key key-operate", wanted["why"])}
        record = connection.execute(sa.text("SELECT action, target, count, note FROM audit_record")).one()
    assert tuple(record) == (
        "warmup.override",
        "shop@example.com at google",
        len(names),
        "1,234: agreed with the provider",
    )
