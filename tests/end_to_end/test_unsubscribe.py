"""From a delivered message's own header to the end of what was to follow: as a mailbox provider does it."""

from __future__ import annotations

import json
import re
import signal
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.site import Site

pytestmark = pytest.mark.timeout(240)

SEQUENCE = """
name: trial
sender: ada
audience: {name: readers, file: readers.csv}
steps:
  - email: hello
    subject: "Hello {{ first_name }}"
    text: hello.txt
  - wait: 2d
  - email: again
    subject: "Again {{ first_name }}"
    text: hello.txt
"""


def unsubscribe_path(site: Site, address: str) -> str:
    """What RFC 8058 §3.1 has a receiver find in the message that the provider kept for an address."""
    for file in (Path(site.folder) / "sandbox/Maildir/new").iterdir():
        message = message_from_bytes(file.read_bytes(), policy=default)
        if address in str(message["To"]):
            assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
            found = re.match(r"<https://mail\.sender\.example(/u/[^>]+)>", str(message["List-Unsubscribe"]))
            assert found is not None
            return found[1]
    raise AssertionError(f"no message to {address}")


async def test_the_header_of_a_message_unsubscribes_only_its_recipient(site: Site) -> None:
    from postroad.campaign.plan import advance

    await site.launch(["a@mailbox.example", "b@mailbox.example"], SEQUENCE)
    site.start("worker")
    site.start("recorder")
    await site.until_settled(within_s=90)
    web = site.start("web", "--port", "0")
    await site.until(lambda: "web listens at" in site.log("web"), within_s=60)
    listening = re.search(r"web listens at (http://\S+)", site.log("web"))
    assert listening is not None
    path = unsubscribe_path(site, "a@mailbox.example")
    async with httpx.AsyncClient(base_url=listening[1], timeout=20) as receiver:
        assert (await receiver.get(path)).status_code == 200
        assert site.json("suppression", "list") == []
        assert (await receiver.post(path, data={"List-Unsubscribe": "One-Click"})).status_code == 200
    async with site.context() as context:
        advance(context.engine, "trial", context.clock.now(), context.hash_of)
    listed = json.loads(site.run("suppression", "list", "--json").stdout)
    assert [(one["address"], one["reason"]) for one in listed] == [("a@mailbox.example", "unsubscribe")]
    async with site.context() as context:
        from postroad.campaign.status import summary

        again = summary(context.engine, "trial").steps[1].counts
    assert {state.value: n for state, n in again.items() if n} == {"suppressed": 1, "planned": 1}

    health = site.variables | {"POSTROAD_PUBLIC_URL": listening[1]}
    site.variables = health
    checks = json.loads(site.run("doctor", "--json", check=False).stdout)
    assert [check["health"] for check in checks if check["part"] == "public_url"] == ["ok"]
    assert await site.stop(web, signal.SIGTERM) == 0
    token = path.rpartition("-")[2]
    assert token not in site.log("web")
    assert "POST /u/… 200" in site.log("web")
    checks = json.loads(site.run("doctor", "--json", check=False).stdout)
    assert [check["health"] for check in checks if check["part"] == "public_url"] == ["warn"]
