"""A draft of two emails with an HTML part, in the store of a console."""

from __future__ import annotations

from pathlib import Path

from tests.campaign.project import CampaignProject
from tests.console.kit import Console

HTML_CAMPAIGN = """
name: spring
sender: news
audience:
  name: people
steps:
  - email: hello
    subject: Hello {{ name|default('you') }}
    text: hello.txt
    html: hello.html
  - wait: 1d
  - email: later
    subject: Still there?
    text: hello.txt
"""
HTML = (
    '<p>Hello {{ name }}</p><img src="https://tracker.example.com/x.png" alt="x">'
    '<p>{{ postal_address }} <a href="{{ unsubscribe_url }}">Unsubscribe</a></p>'
)
VARIANTS = "    variants: [{name: short, subject: Hi, share: 50}, {name: plain, share: 50}]\n"
FROM_FILE = HTML_CAMPAIGN.replace("name: people\n", "name: coming\n  file: coming.csv\n").replace(
    "html: hello.html\n", f"html: hello.html\n{VARIANTS}", 1
)
"""The same campaign, whose launch imports a file first."""

START = 'href="/launch/spring/start"'


def draft_project(folder: Path, console: Console) -> CampaignProject:
    """Apply the campaign for three recipients, with the settings of the console, which gets the project's sender."""
    folder.mkdir()
    project = CampaignProject(folder, console.engine)
    settings = console.parts.context.settings
    project.settings = settings.model_copy(
        update={
            "senders": project.settings.senders,
            "routes": project.settings.routes,
            "public_url": project.settings.public_url,
        }
    )
    console.parts.context.settings = project.settings
    project.template("hello.html", HTML)
    project.fill([f"reader{n}@example.com,UTC,Reader {n}" for n in range(3)])
    project.apply(HTML_CAMPAIGN)
    return project
