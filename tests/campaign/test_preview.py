"""A preview is the message as it would be sent, with its signature, but its links belong to no touch."""

from __future__ import annotations

from email import policy
from email.parser import BytesParser

import dkim
import pytest
import sqlalchemy as sa

from postroad.campaign.preview import PREVIEW_TOUCH, Preview, PreviewRequest, preview
from postroad.errors import DataError, StateError
from postroad.mail.dkim_keys import load_signers
from postroad.mail.token import Purpose
from postroad.store.engine import read, write
from postroad.store.suppression import Entry, SuppressionReason, save_suppressions
from tests.campaign.checking import SIGNER
from tests.campaign.project import CAMPAIGN, NOW, TEXT, CampaignProject
from tests.campaign.tables import row_counts

SECOND = "  - wait: 1d\n  - email: again\n    subject: Again\n    text: again.txt\n"


def shown(project: CampaignProject, *, step: str | None = None, address: str | None = None) -> Preview:
    dkim_signers = load_signers(project.settings, {})
    request = PreviewRequest(campaign="spring", step=step, address=address)
    return preview(project.engine, project.settings, SIGNER, dkim_signers, request, now=NOW)


@pytest.fixture
def filled(project: CampaignProject) -> CampaignProject:
    project.template("again.txt", "Again, {{ name }}\n" + TEXT)
    project.fill(["b@example.com,,Bob", "a@example.com,,Ada", "c@example.com,,"])
    project.apply(CAMPAIGN + SECOND)
    return project


def test_the_default_is_the_first_step_and_member(filled: CampaignProject) -> None:
    before = row_counts(filled.engine)
    seen = shown(filled)
    assert (seen.step, seen.recipient, seen.html) == ("hello", "a@example.com", None)
    assert seen.text.startswith("Hello Ada.")
    assert "Subject: Hello Ada" in seen.header
    assert row_counts(filled.engine) == before


def test_a_given_step_and_member_are_rendered(filled: CampaignProject) -> None:
    seen = shown(filled, step="again", address=" B@Example.com ")
    assert (seen.step, seen.recipient) == ("again", "b@example.com")
    assert seen.text.startswith("Again, Bob\n")


def test_links_of_a_preview_belong_to_no_touch(filled: CampaignProject) -> None:
    token = SIGNER.sign(Purpose.UNSUBSCRIBE, PREVIEW_TOUCH)
    assert f"/u/{token}" in shown(filled).text
    with read(filled.engine) as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM touch WHERE id = 0")).scalar_one() == 0


def test_a_preview_is_signed_with_the_senders_key(filled: CampaignProject) -> None:
    seen = shown(filled)
    (key,) = load_signers(filled.settings, {})["news"].keys_at(NOW)
    assert dkim.verify(seen.content, dnsfunc=lambda name, timeout=5: key.record.encode())
    assert seen.header.startswith("DKIM-Signature: v=1; a=ed25519-sha256;")


def test_an_unknown_step_or_recipient_is_an_error(filled: CampaignProject) -> None:
    with pytest.raises(StateError, match=r"named 'more'\nKnown: again, hello\."):
        shown(filled, step="more")
    with pytest.raises(StateError, match=r"x@example\.com is not in the audience 'people' of campaign spring"):
        shown(filled, address="x@example.com")
    with pytest.raises(DataError, match="'name' is undefined"):
        shown(filled, step="again", address="c@example.com")


def test_an_empty_audience_is_an_error(project: CampaignProject) -> None:
    project.apply()
    with pytest.raises(StateError, match="its audience 'people' is empty") as caught:
        shown(project)
    assert caught.value.remedy == "Import it: `postroad audience import people FILE`."


def test_the_first_member_is_one_of_the_segment(project: CampaignProject) -> None:
    project.fill([f"r{n}@example.com,,{'Ann' if n == 300 else 'Bob'}" for n in range(310)])
    project.apply(CAMPAIGN.replace("name: people", "name: people\n  where: name = 'Ann'"))
    assert shown(project).recipient == "r300@example.com"
    assert shown(project, address="r0@example.com").recipient == "r0@example.com", "any member may be named"


def test_without_a_member_in_the_segment_the_first_one_is_shown(project: CampaignProject) -> None:
    project.fill(["a@example.com,,Ann"])
    project.apply(CAMPAIGN.replace("name: people", "name: people\n  where: name = 'Cy'"))
    assert shown(project).recipient == "a@example.com"


def test_the_remedy_for_an_empty_audience_names_the_file_of_the_campaign(project: CampaignProject) -> None:
    (project.folder / "my people.csv").write_text("email,name\nno address,Ann\n")
    project.apply(CAMPAIGN.replace("name: people", "name: people\n  file: my people.csv"))
    with pytest.raises(StateError) as caught:
        shown(project)
    file = project.folder / "my people.csv"
    assert caught.value.remedy == f"Import it: `postroad audience import people '{file}'`."


RICH_SUBJECT = "Mix 3:o:1 [bold]now[/bold] :100: {{ name }} 🎉👩‍💻 für „dich“  zwei"
RICH_HTML = """<!DOCTYPE html><html><head><style>p{color:red} p:hover{color:blue}</style></head><body>
<!--[if mso]><b>{{ name }}</b><![endif]--><p>{{ name }} &amp; 3:o:1 🎉</p>
<p><a href="{{ unsubscribe_url }}">Leave</a> {{ postal_address }}</p></body></html>"""


@pytest.fixture
def rich(project: CampaignProject) -> CampaignProject:
    project.template("hello.txt", f"{RICH_SUBJECT}\n.\n  [red]x[/red] [link]\n" + TEXT + "=20\n")
    project.template("hello.html", RICH_HTML)
    project.fill(["ada@example.com,,Ada", "zoe@example.com,,Zoë 🚀", 'x@example.com,,"<b>:tm:</b> [b]"'])
    project.apply(
        CAMPAIGN.replace("subject: Hello {{ name|default('you') }}", f"subject: '{RICH_SUBJECT}'")
        + "    html: hello.html\n"
    )
    return project


@pytest.mark.parametrize(
    ("address", "name", "escaped"),
    [
        ("ada@example.com", "Ada", "Ada"),
        ("zoe@example.com", "Zoë 🚀", "Zoë 🚀"),
        ("x@example.com", "<b>:tm:</b> [b]", "&lt;b&gt;:tm:&lt;/b&gt; [b]"),
    ],
)
def test_a_preview_is_decoded_as_a_mail_program_does(
    rich: CampaignProject, address: str, name: str, escaped: str
) -> None:
    seen = shown(rich, address=address)
    assert seen.subject == RICH_SUBJECT.replace("{{ name }}", name)
    assert seen.header.count("=?utf-8?b?") > 1
    assert seen.text.startswith(f"{seen.subject}\n.\n  [red]x[/red] [link]\nHello {name}.")
    assert seen.text.endswith("=20\n")
    assert seen.html is not None
    assert f'<p style="color: red;">{escaped} &amp; 3:o:1 🎉</p>' in seen.html
    assert "<style> p:hover{color:blue}</style>" in seen.html
    assert f"<!--[if mso]><b>{escaped}</b><![endif]-->" in seen.html
    message = BytesParser(policy=policy.default).parsebytes(seen.content)
    for subtype, part in (("plain", seen.text), ("html", seen.html)):
        body = message.get_body((subtype,))
        assert body is not None
        octets = body.get_payload(decode=True)
        assert isinstance(octets, bytes)
        assert octets.decode().replace("\r\n", "\n") == part


def test_before_the_import_a_recipient_of_the_file_is_shown(project: CampaignProject) -> None:
    rows = ["email,name", "b@example.com,Bob", "off@example.com,Off", "bad,Bad"]
    (project.folder / "coming.csv").write_text("\n".join(rows), encoding="utf-8")
    with write(project.engine) as connection:
        save_suppressions(connection, [Entry("b@example.com", SuppressionReason.UNSUBSCRIBE, "test", NOW)])
    project.apply(CAMPAIGN.replace("  name: people\n", "  name: people\n  file: coming.csv\n"))
    before = row_counts(project.engine)
    seen = shown(project)
    assert (seen.recipient, seen.text.splitlines()[0]) == ("off@example.com", "Hello Off.")
    assert shown(project, address="Off@example.com").recipient == "off@example.com"
    with pytest.raises(StateError, match=r"c@example.com is not in the audience"):
        shown(project, address="c@example.com")
    assert row_counts(project.engine) == before, "nothing is imported"
    (project.folder / "coming.csv").unlink()
    with pytest.raises(StateError, match="is empty"):
        shown(project)
