"""Keys are made for their owner's eyes only, and what they print is what a verifier looks up."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import dkim
import pytest

from postroad.mail.dkim import parse_key
from tests.cli.conftest import SETTINGS, Run

KEYGEN = ("dkim", "keygen", "--domain", "example.com", "--selector", "2026a", "--out", "a.pem")
CAMPAIGN = """
name: spring
sender: ada
audience: {name: people}
steps:
  - {email: hello, subject: "Hello {{ first_name }}", html: hello.html}
"""
HTML = "<style>p { color: red }</style><p>Hello [b]{{ first_name }}[/b]</p>{{ unsubscribe_url }} {{ postal_address }}"


@pytest.mark.parametrize(("algorithm", "strings"), [("rsa", 2), ("ed25519", 1)])
def test_a_key_is_made_and_its_record_shown(run: Run, tmp_path: Path, algorithm: str, strings: int) -> None:
    made = json.loads(run(*KEYGEN, "--algorithm", algorithm, "--json").stdout)
    path = tmp_path / "a.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    parse_key(path.read_bytes(), where="test")
    assert made["name"] == "2026a._domainkey.example.com"
    assert made["value"].startswith(f"v=DKIM1; k={algorithm}; p=")
    assert "".join(made["strings"]) == made["value"]
    assert len(made["strings"]) == strings
    assert made["zone"].startswith('2026a._domainkey.example.com. IN TXT ( "v=DKIM1;')

    (tmp_path / "postroad.toml").write_text(
        SETTINGS.replace(
            "[routes.relay]", '[[senders.ada.dkim]]\nselector = "2026a"\nkey_file = "a.pem"\n[routes.relay]'
        )
    )
    (record,) = json.loads(run("dkim", "record", "ada", "--json").stdout)
    assert {**record, "key_file": "a.pem"} == made
    shown = run("dkim", "record", "ada").stdout
    assert made["value"] in shown
    assert made["zone"] in shown
    secret = path.read_text().splitlines()[1]
    assert secret not in shown + json.dumps(made)


def test_a_key_is_never_written_over(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("precious")
    result = run(*KEYGEN)
    assert result.returncode == 7
    assert "is there already" in result.stderr
    assert (tmp_path / "a.pem").read_text() == "precious"


@pytest.mark.parametrize(
    "change", [("rsa", "dsa"), ("example.com", "exa mple.com"), ("2026a", "a b"), ("a.pem", "postroad.toml/a.pem")]
)
def test_words_that_cannot_be_used(run: Run, change: tuple[str, str]) -> None:
    words = [change[1] if word == change[0] else word for word in (*KEYGEN, "--algorithm", "rsa")]
    result = run(*words)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.timeout(180)  # six processes, one after the other
def test_a_preview_is_written_as_a_file_that_verifies(run: Run, tmp_path: Path) -> None:
    made = json.loads(run(*KEYGEN, "--json").stdout)
    key = '[[senders.ada.dkim]]\nselector = "2026a"\nkey_file = "a.pem"\n'
    (tmp_path / "postroad.toml").write_text(SETTINGS.replace("[routes.relay]", f"{key}[routes.relay]"))
    (tmp_path / "hello.html").write_text(HTML)
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN)
    (tmp_path / "people.csv").write_text(
        "address,first_name\nbob@example.org,Bob\neve@example.org,Eve\nzoe@example.org,Zoë :100: 🎉\n"
    )
    assert run("campaign", "apply", "campaign.yaml").returncode == 0
    assert run("audience", "import", "people", "people.csv").returncode == 0

    shown = run("campaign", "preview", "spring", "--recipient", "eve@example.org", "--out", "eve.eml")
    assert shown.returncode == 0, shown.stderr
    content = (tmp_path / "eve.eml").read_bytes()
    assert dkim.verify(content, dnsfunc=lambda name, timeout=5: made["value"].encode())
    assert "Subject: Hello Eve" in shown.stdout
    assert '<p style="color: red;">Hello [b]Eve[/b]</p>' in shown.stdout
    assert "\nHello [b]Eve[/b]\n" in shown.stdout
    assert f"{len(content):,} bytes" in shown.stdout
    assert "\nsubject\n" not in shown.stdout
    shown = run("campaign", "preview", "spring", "--recipient", "zoe@example.org")
    assert "Subject: =?utf-8?b?" in shown.stdout
    assert "\nsubject\nHello Zoë :100: 🎉\n" in shown.stdout

    seen = json.loads(run("campaign", "preview", "spring", "--json").stdout)
    assert (seen["step"], seen["recipient"], seen["file"]) == ("hello", "bob@example.org", None)
    assert seen["size_bytes"] > 1000
    assert seen["subject"] == "Hello Bob"
    missing = run("campaign", "preview", "spring", "--step", "more")
    assert missing.returncode == 7
    assert "no email step of campaign spring named 'more'" in missing.stderr
