"""`postroad campaign proof` shows what the server replied, or writes files, and its exit code is of use to scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cli.site import Site, a_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("site")) as site:
        yield site


def test_proofs_are_written_to_a_folder_that_is_made(site: Site) -> None:
    done = site.run("campaign", "proof", "spring", "--out", "new/proofs", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    [proof] = json.loads(done.stdout)["proofs"]
    assert (proof["step"], proof["recipient"], proof["to"]) == ("hello", "bob@example.org", "bob@example.org")
    content = (site.folder / proof["file"]).read_bytes()
    assert len(content) == proof["size_bytes"]
    assert b"Subject: [proof] Hello\r\n" in content
    assert proof["message_id"].encode() in content


def test_files_of_several_addresses_have_names_of_their_own(site: Site) -> None:
    words = ("--to", "a@example.org", "--to", "b@example.org", "--out", "several")
    done = site.run("campaign", "proof", "spring", *words)
    assert done.returncode == 0
    written = {file.name: file.read_text() for file in (site.folder / "several").iterdir()}
    assert {name: "To: a@example.org" in text for name, text in written.items()} == {
        "spring-hello-1.eml": True,
        "spring-hello-2.eml": False,
    }


def test_a_proof_that_is_not_accepted_ends_with_1_and_the_reason(site: Site) -> None:
    done = site.run("campaign", "proof", "spring", "--to", "me@example.org")
    assert done.returncode == 1
    assert "step hello as bob@example.org, to me@example.org: not accepted: " in done.stdout
    done = site.run("campaign", "proof", "spring", "--to", "me@example.org", "--json")
    [proof] = json.loads(done.stdout)["proofs"]
    assert (done.returncode, proof["accepted"], proof["unknown"], proof["route"]) == (1, False, False, "relay")
    assert "127.0.0.1" in proof["reply"]


def test_without_an_address_or_a_folder_it_says_what_to_add(site: Site) -> None:
    done = site.run("campaign", "proof", "spring")
    assert done.returncode == 2
    assert "Add --to with your address, or --out with a folder." in done.stderr


def test_a_suppressed_address_ends_with_7(site: Site) -> None:
    assert site.run("suppression", "add", "gone@example.org").returncode == 0
    done = site.run("campaign", "proof", "spring", "--to", "gone@example.org", "--json")
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["message"]) == (
        7,
        "gone@example.org is suppressed (manual), so no proof is sent to it",
    )


def test_a_folder_that_cannot_be_written_is_named(site: Site) -> None:
    (site.folder / "file").write_text("")
    done = site.run("campaign", "proof", "spring", "--out", "file")
    assert done.returncode == 2
    assert "file cannot be written" in done.stderr


def test_links_belong_to_a_dry_run(site: Site) -> None:
    assert site.run("campaign", "launch", "spring", "--links").returncode == 2
    done = site.run("campaign", "launch", "spring", "--dry-run", "--links", "--json")
    assert done.returncode == 0, done.stderr
    assert {finding["code"] for finding in json.loads(done.stdout)["findings"]} == {"sender.no-dkim"}
