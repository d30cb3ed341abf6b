"""Preflight reports problems of the content with their step, part and line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from postroad.campaign.content import CLIP_BYTES, MIN_SHARED, shared_words, words
from postroad.campaign.finding import Level, PreflightFinding
from postroad.campaign.links import StepLink, is_same_site, link_problem, shown_host
from postroad.campaign.preflight import check
from postroad.campaign.subject import count_emoji, is_in_capitals, subject_findings
from postroad.dns.public_address import networks
from tests.campaign.checking import SIGNER
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject

FOOT = '<p>{{ postal_address }} <a href="{{ unsubscribe_url }}">unsubscribe</a></p>'
TEXT_FOOT = "\n{{ postal_address }}\n{{ unsubscribe_url }}\n"
STORY = (
    "This month the workshop fires its new kiln for the first time. All who throw bowls on Thursday evenings may "
    "bring three pieces and glaze them in blue, green or white. Marta explains how ash and feldspar melt together."
)
OTHER = (
    "Please remember: invoices from January are payable within thirty days by bank transfer. Contact accounting about "
    "reminders, discounts, partial payments, credit notes, currency, taxation, and address changes."
)


def found(
    project: CampaignProject, *, html: str | None = None, text: str | None = None, subject: str = "Hello"
) -> dict[str, PreflightFinding]:
    """Findings of a campaign with this content, by code."""
    if not list(project.folder.glob("*.csv")):
        project.fill(["a@example.com,,Ada", "b@example.com,,Bob"])
    campaign = CAMPAIGN.replace("Hello {{ name|default('you') }}", f"'{subject}'")
    if html is not None:
        project.template("hello.html", html + FOOT)
        campaign += "    html: hello.html\n"
    if text is not None:
        project.template("hello.txt", text + TEXT_FOOT)
    elif html is not None:
        campaign = campaign.replace("    text: hello.txt\n", "")
    project.apply(campaign)
    findings = check(project.engine, project.settings, SIGNER, "spring").findings
    assert len({(one.code, one.place) for one in findings}) == len(findings)
    return {finding.code: finding for finding in findings}


def test_a_good_newsletter_has_no_findings(project: CampaignProject) -> None:
    html = f"<h1>Kiln</h1><img src='https://a.example.com/k.png' alt='The kiln'><p>{STORY}</p>"
    html += "<a href='https://example.com/k'>Read on</a>"
    assert found(project, html=html, text=f"Kiln\n\n{STORY}\n\nRead on: https://example.com/k") == {}
    assert found(project, html=html) == {}


def test_images_without_text_are_named_by_line(project: CampaignProject) -> None:
    html = f"<p>{STORY}</p>\n<img src='1'>\n<img alt='' src='2'>\n{{% if name %}}<img src='3'>{{% endif %}}"
    finding = found(project, html=html)["image.no-alt"]
    assert (finding.level, finding.step, finding.place) == (Level.WARN, "hello", "html, lines 2, 4")
    assert finding.what == "campaign spring, step hello, html, lines 2, 4: 2 of 3 images have no alternative text"


def test_plain_http_is_found_in_both_parts(project: CampaignProject) -> None:
    html = f"<p>{STORY}</p>\n<a href='http://shop.example.com/{{{{ name }}}}'>Shop</a>"
    findings = found(project, html=html, text=f"{STORY}\n\nhttp://shop.example.com/x, http://localhost/y")
    assert findings["link.http"].place == "html, line 2"
    assert findings["link.unusable"].place == "text, line 3"


def test_a_link_that_is_a_merge_field_is_checked_by_its_value(project: CampaignProject) -> None:
    project.fill(
        ["a@example.com,,https://ok.example.com", "b@example.com,,http://b.example.com"], header="email,tz,url"
    )
    finding = found(project, html=f"<p>{STORY}</p><a href='{{{{ url }}}}'>x</a>")["link.http"]
    assert "a link without https: http://b.example.com" in finding.what
    assert finding.place == "html"


def test_html_of_mjml_is_checked_without_lines(project: CampaignProject) -> None:
    project.fill(["a@example.com,,Ada"])
    mjml = (
        f"<mjml><mj-body><mj-section><mj-column><mj-text>{STORY} {FOOT}</mj-text>"
        "<mj-button href='http://a.example.com'>Go</mj-button></mj-column></mj-section></mj-body></mjml>"
    )
    project.template("hello.mjml", mjml)
    project.apply(CAMPAIGN.replace("text: hello.txt", "mjml: hello.mjml"))
    [finding] = check(project.engine, project.settings, SIGNER, "spring").findings
    assert (finding.code, finding.place) == ("link.http", "html")


def test_a_text_of_another_host_is_found(project: CampaignProject) -> None:
    html = f"<p>{STORY}</p><a href='https://evil.example.org/x'>https://www.bank.example.com</a>"
    finding = found(project, html=html)["link.other-host"]
    assert "https://www.bank.example.com leads to https://evil.example.org/x" in finding.what


def test_the_size_after_the_merge_is_compared_with_gmails_limit(project: CampaignProject) -> None:
    project.fill(["a@example.com,,short", f"b@example.com,,{'long ' * 600}", "c@example.com,,shorter"])
    html = f"<p>{STORY}</p>" + "<p>{{ name }}</p>" * 10 + "<i></i>" * 11_000
    finding = found(project, html=html)["size.clipped"]
    assert "for b@example.com" in finding.what
    assert "102 kB" in finding.what
    assert "size.clipped" not in found(project, html=html.replace("<i></i>" * 5_000, ""))


def test_the_limit_counts_line_ends_as_they_are_sent(project: CampaignProject) -> None:
    rows = CLIP_BYTES // 40
    assert "size.clipped" in found(project, html=f"<p>{STORY}</p>" + f"<!-- {'x' * 30} -->\n" * (rows + 10))


def test_parts_that_say_something_else_are_found(project: CampaignProject) -> None:
    finding = found(project, html=f"<p>{STORY}</p>", text=OTHER)["text.differs"]
    assert (finding.place, finding.level) == ("text", Level.WARN)


@pytest.mark.parametrize("text", ["", "View this message in your browser."])
def test_a_text_part_that_says_hardly_anything_is_found(project: CampaignProject, text: str) -> None:
    html = f"<p>{STORY} {OTHER}</p>"
    assert found(project, html=html, text=text)["text.empty"].place == "text"


def test_a_message_of_images_only_is_found(project: CampaignProject) -> None:
    html = "<img src='https://a.example.com/1.png' alt='Spring sale'>"
    assert found(project, html=html)["text.empty"].place == "html"


def test_a_field_that_most_recipients_lack_is_found_with_their_share(project: CampaignProject) -> None:
    project.fill(
        [f"r{n}@example.com,,{'Ada' if n % 3 else ''},{'yes' if n % 3 else ''}" for n in range(9)],
        header="email,tz,name,vip",
    )
    text = "Hello {{ name|default('you') }} {% if vip is defined and vip == 'no' %}x{% endif %}"
    assert found(project, text=text) == {}
    project.fill([f"s{n}@example.com,,," for n in range(4)], header="email,tz,name,vip")
    project.template("hello.txt", text + TEXT_FOOT)
    project.apply()
    shown = {
        f.what: (f.level, f.recipients) for f in check(project.engine, project.settings, SIGNER, "spring").findings
    }
    assert shown == {
        "campaign spring, step hello: 7 of 13 recipients (54%) have no {{ name }}": (Level.WARN, 7),
        "campaign spring, step hello: 7 of 13 recipients (54%) have no {{ vip }}": (Level.INFO, 7),
    }


def test_html_that_cannot_be_read_is_a_warning_and_the_launch_continues(project: CampaignProject) -> None:
    project.fill(["a@example.com,,Ada"])
    project.template("hello.html", FOOT + "<a href='" * 60_000)
    project.apply(CAMPAIGN + "    html: hello.html\n")
    report = check(project.engine, project.settings, SIGNER, "spring")
    assert report.ok
    assert "content.unread" in {finding.code for finding in report.findings}


def test_the_recipients_of_a_file_are_examined_before_it_is_imported(project: CampaignProject, tmp_path: Path) -> None:
    file = tmp_path / "coming.csv"
    file.write_text("email,tz,name\na@example.com,,RE: hello\n")
    project.template("hello.txt", "Hello" + TEXT_FOOT)
    project.apply(CAMPAIGN.replace("Hello {{ name|default('you') }}", "'{{ name }}'"), now=NOW)
    codes = {finding.code for finding in check(project.engine, project.settings, SIGNER, "spring", file=file).findings}
    assert codes == {"subject.reply"}


SUBJECTS = {
    "Hello Ada": [],
    "  ": ["subject.empty"],
    "x" * 78: [],
    "x" * 79: ["subject.long"],
    "Re: your order": ["subject.reply"],
    "RE : your order": ["subject.reply"],
    "Fwd: news": ["subject.reply"],
    "Fw: news": ["subject.reply"],
    "AW: Ihre Bestellung": ["subject.reply"],
    "Re[2]: hello": ["subject.reply"],
    "回复：新闻": ["subject.reply"],
    "Regarding: your order": [],
    "Reading list": [],
    "Trust: a story": [],
    "SALE ENDS TODAY": ["subject.capitals"],
    "ЛЕТНЯЯ РАСПРОДАЖА": ["subject.capitals"],
    "NASA": [],
    "夏のセール": [],
    "Hello 🎉🎉": ["subject.emoji"],
}


@pytest.mark.parametrize(("subject", "codes"), SUBJECTS.items())
def test_a_subject_has_the_expected_findings(subject: str, codes: list[str]) -> None:
    assert [finding.code for finding in subject_findings("step hello", [subject])] == codes


def test_emoji_are_information_and_counted() -> None:
    [finding] = subject_findings("step hello", ["plain", "👍🏽 and ☀️"])
    assert finding.level is Level.INFO
    assert (count_emoji("👍🏽 and ☀️"), count_emoji("plain ©")) == (2, 0)
    assert not is_in_capitals("A1 2345678")


PROBLEMS = {
    "https://example.com": None,
    "https://example.com:8443/path?q=1#f": None,
    "http://example.com": "link.http",
    "HTTP://EXAMPLE.COM": "link.http",
    "mailto:a@example.com": None,
    "tel:+43123": None,
    "#top": None,
    "#": "link.unusable",
    "": "link.unusable",
    "page.html": "link.unusable",
    "www.example.com": "link.unusable",
    "//example.com/x": "link.unusable",
    "/path": "link.unusable",
    "javascript:alert(1)": "link.unusable",
    "file:///etc/passwd": "link.unusable",
    "https://": "link.unusable",
    "https://localhost/x": "link.unusable",
    "https://intranet/x": "link.unusable",
    "https://build.local/x": "link.unusable",
    "https://192.168.1.2/x": "link.unusable",
    "https://[::1]/x": "link.unusable",
    "https://[::1": "link.unusable",
    "https://example.com:99999/": "link.unusable",
    "https://192.0.2.1.example.com": None,
}


@pytest.mark.parametrize(("href", "code"), PROBLEMS.items())
def test_an_address_of_a_link_is_usable_or_not(href: str, code: str | None) -> None:
    problem = link_problem(StepLink(href=href, part="html"))
    assert (problem.word if problem is not None else None) == code


def test_links_may_lead_to_an_allowed_network() -> None:
    allowed = networks(["10.0.0.0/8"])
    for href in ("https://10.1.2.3/x", "https://intranet/x", "https://build.local/x"):
        link = StepLink(href=href, part="html")
        assert link_problem(link) is not None
        assert link_problem(link, allowed) is None
    assert link_problem(StepLink(href="https://192.168.1.2/", part="html"), allowed) is not None


SHOWN = {
    "www.example.com": "www.example.com",
    " https://Example.com/path ": "example.com",
    "example.com.": "example.com",
    "shop.example.co.uk/x": "shop.example.co.uk",
    "Read more": None,
    "Node.js": None,
    "README.md": None,
    "e.g. this": None,
    "3.5": None,
    "a@example.com": None,
}


@pytest.mark.parametrize(("text", "host"), SHOWN.items())
def test_the_host_that_a_text_shows(text: str, host: str | None) -> None:
    assert shown_host(text) == host


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("www.example.com", "example.com", True),
        ("shop.example.com", "news.example.com", True),
        ("example.com", "example.org", False),
        ("one.co.uk", "two.co.uk", False),
        ("shop.one.co.uk", "one.co.uk", True),
        ("example.com.evil.net", "example.com", False),
    ],
)
def test_hosts_of_one_domain_are_one_site(one: str, other: str, same: bool) -> None:
    assert is_same_site(one, other) is same


def test_words_of_scripts_without_blanks_are_compared_by_character() -> None:
    assert shared_words(words("春のセールは明日から"), words("明日から春のセール")) > 0.8
    assert shared_words(words(STORY), words(OTHER)) < MIN_SHARED < shared_words(words(STORY), words(f"{STORY} {OTHER}"))
    assert words("See https://a.example/x or a@b.example, 12 of 34") == {"see"}


@pytest.mark.parametrize(
    "text", ["a", "a@", "http://a ", "://", "www.", "春", "{{ name|default('x') }} ", "https://b.example.com/\n"]
)
def test_a_long_text_is_checked_in_little_time(project: CampaignProject, text: str) -> None:
    project.fill(["a@example.com,,Ada"])
    long = text * (1_000 if "{" in text else 900_000 // len(text.encode()))
    begun = time.process_time()
    found(project, html=f"<p>{STORY}</p>", text=long)
    assert time.process_time() - begun < 15  # Quadratic time would be hours.
