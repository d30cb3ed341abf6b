"""`postroad rehearse`, as an operator runs it: real parts, and nothing of the operator's own."""

from __future__ import annotations

from typing import Any

import pytest

from postroad.campaign.csv_file import read_rows
from postroad.campaign.definition import read_campaign
from postroad.cli.rehearse import parse_speed
from postroad.errors import UsageError
from postroad.rehearsal.audience import audience_file
from tests.rehearsal.conftest import CAMPAIGN, Scene

pytestmark = pytest.mark.timeout(240)


def sums(report: dict[str, Any]) -> dict[str, int]:
    return {step["name"]: sum(step["counts"].values()) for step in report["steps"]}


def test_a_campaign_of_two_steps_is_rehearsed_to_its_end(scene: Scene) -> None:
    readers = [f"reader{n}@mailbox.example" for n in range(36)]
    readers += ["grey+greylist-2@mailbox.example", "gone+bounce@mailbox.example"]
    scene.write([*readers, "not an address"], rate="60/1h")
    report = scene.report("--persona", "gmail", "--speed", "10000x", "--start", "2027-03-01T09:00Z")
    assert (report["finished"], report["ended"], report["complete"]) == (True, "finished", True)
    assert report["audience"] == 38
    assert sums(report) == {"hello": 38, "again": 37}
    assert report["steps"][0]["counts"] == {"accepted": 37, "bounced": 1}
    assert (report["captured"], report["duplicates"]) == (74, 0)
    # 38 messages at one a minute, two deferrals of half an hour, and six hours to the second email.
    assert 7 * 3600 < report["seconds"] < 9 * 3600
    assert report["launched_at"].startswith("2027-03-01T09:00:00")
    assert report["finished_at"].startswith("2027-03-01T1")
    [hold] = [hold for hold in report["holds"] if hold["gate"] == "sender:ada@sender.example"]
    assert hold["why"] == "rate 60 in 3600 s, 1 at once"
    # The first email takes 37 minutes, some of which the pace at the provider holds them back as well. The second are
    # due a minute apart, as the first were accepted.
    assert 30 * 60 <= hold["seconds"] < 2.5 * 3600
    kinds = {(said["outcome"], said["code"], said["enhanced"]): said["times"] for said in report["said"]}
    assert kinds == {("deferred", 451, "4.7.1"): 2, ("bounced", 550, "5.1.1"): 1}
    assert report["run"]["kept_up"]


def test_each_provider_has_its_own_account(scene: Scene) -> None:
    campaign = CAMPAIGN.partition("  - wait")[0]
    people = {"yahoo.com": 330, "gmail.com": 60, "mailbox.example": 30}
    addresses = [f"reader{n}@{domain}" for domain, count in people.items() for n in range(count)]
    scene.write(addresses, rate="3000/1h", campaign=campaign)
    report = scene.report("--persona", "gmail,yahoo", "--speed", "10000")
    assert report["complete"]
    assert report["finished"]
    assert {each["persona"]: each["recipients"] for each in report["personas"]} == {
        "yahoo": 330,
        "gmail": 60,
        "well-behaved": 30,
    }
    # Yahoo takes 300 in an hour, and then nothing for four. A shaping rule limits how many are deferred.
    said = {(each["persona"], each["enhanced"]): each for each in report["said"] if each["outcome"] == "deferred"}
    assert said["yahoo", "4.7.0"]["recipients"] >= 1
    assert any(hold["gate"].startswith("provider:yahoo:") for hold in report["holds"])
    assert "[TSS04]" in said["yahoo", "4.7.0"]["reply"]
    yahoo = next(each for each in report["personas"] if each["persona"] == "yahoo")
    assert yahoo["slowest_seconds"] > 4 * 3600 - 1800
    well_behaved = next(each for each in report["personas"] if each["persona"] == "well-behaved")
    assert well_behaved["deferred"] == 0
    assert any(each["cause"] == "no such mailbox" for each in report["said"] if each["persona"] == "yahoo")


def test_a_sender_that_is_refused_for_good_ends_the_rehearsal_and_is_named(scene: Scene) -> None:
    scene.write([f"reader{n}@gmail.com" for n in range(40)])
    report = scene.report("--persona", "gmail", "--require-authentication", "--speed", "10000x", code=1)
    assert (report["finished"], report["ended"], report["complete"]) == (False, "held for good", True)
    assert sum(step["counts"].get("accepted", 0) for step in report["steps"]) == 0
    assert sums(report)["hello"] == 40
    assert ("sender:ada@sender.example", "paused until it is resumed") in {
        (h["gate"], h["why"]) for h in report["holds"]
    }
    assert {each["enhanced"] for each in report["said"] if each["outcome"] == "dead"} == {"5.7.26"}


def test_a_list_that_bounces_is_paused_as_it_would_be_and_the_rest_goes_on(scene: Scene) -> None:
    scene.write([], rate="60/1h", campaign=CAMPAIGN.partition("  - wait")[0])
    bad = [f"gone{n}+bounce@mailbox.example,Reader,bought" for n in range(20)]
    good = [f"reader{n}@mailbox.example,Reader,own" for n in range(20)]
    mixed = [row for pair in zip(bad, good, strict=True) for row in pair]
    (scene.folder / "readers.csv").write_text("\n".join(["address,first_name,source", *mixed]) + "\n")
    report = scene.report("--persona", "gmail", "--speed", "10000x", "--start", "2027-03-01T09:00Z", code=1)
    [paused] = report["paused"]
    assert (paused["step"], paused["source"], paused["provider"]) == ("hello", "bought", "other")
    assert paused["at"].startswith("2027-03-01T09:")
    counts = report["steps"][0]["counts"]
    assert (counts["accepted"], counts["queued"]) == (20, paused["waiting"])
    assert counts["bounced"] + paused["waiting"] == 20
    # Six bounces of six messages are enough; one or two more are on their way by then.
    assert 6 <= counts["bounced"] <= 12
    assert "hard bounces of" in paused["reason"]
    assert (report["ended"], report["finished"], report["complete"]) == ("held for good", False, True)


def test_for_a_person_it_is_a_few_tables_and_a_kept_folder(scene: Scene) -> None:
    scene.write([f"reader{n}@mailbox.example" for n in range(5)], campaign=CAMPAIGN.partition("  - wait")[0])
    result = scene.run("--persona", "gmail", "--directory", "kept")
    assert result.returncode == 0, result.stdout + result.stderr
    for words in ("trial: finished", "audience 5", "well-behaved", "5 messages at the sandbox, 0 twice"):
        assert words in result.stdout
    assert (scene.folder / "kept/sandbox/accepted.jsonl").exists()
    again = scene.run("--directory", "kept")
    assert again.returncode == 2
    assert "folder of its own" in again.stderr


@pytest.mark.parametrize("text", ["fast", "0x", "x", "-1x", "1000000x", "nan"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no speed"):
        parse_speed(text)


def test_a_speed_is_read_with_and_without_its_x() -> None:
    assert [parse_speed(text) for text in ("100x", "100", "2.5X", " 1x ")] == [100, 100, 2.5, 1]


def test_a_persona_that_is_not_known_is_said_before_anything_starts(scene: Scene) -> None:
    scene.write(["ann@mailbox.example"])
    result = scene.run("--persona", "hooli=1")
    assert result.returncode == 2
    assert "there is no persona 'hooli'" in result.stderr


def test_a_campaign_without_a_file_for_its_audience_is_not_rehearsed(scene: Scene) -> None:
    scene.write(["ann@mailbox.example"], campaign=CAMPAIGN.replace(", file: readers.csv", ""))
    result = scene.run()
    assert result.returncode == 2
    assert "never opens the database" in result.stderr


def test_what_preflight_finds_stops_it_with_its_own_exit_code(scene: Scene) -> None:
    scene.write(["ann@mailbox.example"])
    (scene.folder / "hello.txt").write_text("No way out.\n")
    result = scene.run()
    assert result.returncode == 5
    assert "unsubscribe_url" in result.stderr


def test_rows_are_repeated_under_other_addresses(scene: Scene) -> None:
    scene.write(["ann@mailbox.example", "bob+defer@mailbox.example"])
    file = read_campaign(scene.folder / "campaign.yaml")
    assert audience_file(file, scene.folder, None) == scene.folder / "readers.csv"
    columns, rows = read_rows(audience_file(file, scene.folder, 5))
    assert columns == ("address", "first_name")
    assert [row.fields for row in rows] == [
        ["ann@mailbox.example", "Reader 0"],
        ["bob+defer@mailbox.example", "Reader 1"],
        ["ann-2@mailbox.example", "Reader 0"],
        ["bob-2+defer@mailbox.example", "Reader 1"],
        ["ann-3@mailbox.example", "Reader 0"],
    ]


WARMING = """
[senders.ada.warmup]
preset = "table"
table = [5, 10, 20]
opens = "09:00"
closes = "21:00"
[senders.bob]
address = "bob@other.example"
name = "Bob"
postal_address = "1 Post Road, Milestone"
route = "relay"
bounce_domain = "bounce.other.example"
"""


def test_a_warming_sender_keeps_its_caps_and_the_rest_overflows(scene: Scene) -> None:
    campaign = CAMPAIGN.partition("  - wait")[0]
    overflow = campaign.replace("steps:", "overflow: {senders: [bob], within: 1d}\nsteps:")
    scene.write([f"reader{n}@mailbox.example" for n in range(14)], campaign=overflow)
    with (scene.folder / "postroad.toml").open("a") as settings:
        settings.write(WARMING)
    report = scene.report("--persona", "gmail", "--speed", "10000x", "--start", "2027-03-01T09:00Z")
    assert (report["finished"], report["complete"]) == (True, True)
    assert sums(report) == {"hello": 14}
    sent = [(day["provider"], day["day"], day["cap"], day["sent"]) for day in report["warmup"]]
    assert sent == [("other", "2027-03-01", 5, 5)] * len(report["warmup"])
    assert sent
    [moved] = report["overflow"]
    assert (moved["sender"], moved["touches"]) == ("bob", 9)
    assert "caps of ada" in moved["why"]


def test_a_warming_sender_alone_takes_as_many_days_as_its_caps_do(scene: Scene) -> None:
    scene.write([f"reader{n}@mailbox.example" for n in range(25)], campaign=CAMPAIGN.partition("  - wait")[0])
    with (scene.folder / "postroad.toml").open("a") as settings:
        settings.write(WARMING.partition("[senders.bob]")[0])
    options = ("--persona", "gmail", "--speed", "10000x", "--start", "2027-03-01T09:00Z", "--warmup-day", "2")
    report = scene.report(*options)
    assert (report["finished"], report["complete"], report["overflow"]) == (True, True, [])
    address = [day for day in report["warmup"] if day["identity"] == "ada@sender.example"]
    assert [(day["day"], day["cap"], day["sent"]) for day in address] == [
        ("2027-03-01", 10, 10),
        ("2027-03-02", 20, 15),
    ]
    assert any(hold["gate"].startswith("warmup:") and hold["why"] == "quota used up" for hold in report["holds"])
