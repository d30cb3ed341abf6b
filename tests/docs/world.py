"""What the pages of the documentation take for granted: settings, campaigns, lists and reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_STEP = "steps:\n  - {email: hello, subject: Hello, text: hello.txt}\n"
_VARIANTS = _STEP.replace(
    "}\n", ", variants: [{name: question, subject: Shall we plant, share: 50}, {name: plain, share: 50}]}\n"
)
_DAY = (datetime.now(UTC) - timedelta(days=1)).date()
_DMARC = """<?xml version="1.0"?>
<feedback><report_metadata><org_name>example.net</org_name><email>a@example.net</email><report_id>1</report_id>
<date_range><begin>{begin}</begin><end>{end}</end></date_range></report_metadata>
<policy_published><domain>example.com</domain><p>none</p></policy_published>
<record><row><source_ip>192.0.2.1</source_ip><count>2</count>
<policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>pass</spf></policy_evaluated></row>
<identifiers><header_from>example.com</header_from></identifiers></record></feedback>
"""

FILES = {
    "hello.txt": "Hello {{ first_name }}\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n",
    "people.csv": "address,first_name\nbob@example.org,Bob\n",
    "readers.csv": "address,first_name\nann@example.org,Ann\n",
    "old-list.csv": "address\nold@example.org\n",
    "spring/campaign.yaml": f"name: spring\nsender: news\naudience: {{name: newsletter}}\n{_VARIANTS}",
    "spring/hello.txt": "Hello {{ first_name }}\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n",
    "trial.yaml": f"name: trial\nsender: news\naudience: {{name: trials}}\nentry: joined\n{_STEP}",
    "receipt.yaml": "name: receipt\nsender: news\nentry: api\ntransactional: true\naudience: {name: customers}\n"
    "steps:\n  - {email: receipt, subject: 'Receipt {{ number }}', text: receipt.txt}\n",
    "receipt.txt": "{{ amount }}\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n",
    "spring-correction.yaml": f"name: spring-correction\nsender: news\ncorrects: spring\n{_STEP}",
    "seeds.yaml": f"name: seeds-2026-05-04\nsender: news\naudience: {{name: readers}}\n{_STEP}",
    "spam-rate.csv": f"Date,Spam rate\n{_DAY},0.01%\n",
    "data.csv": f"192.0.2.9,{_DAY:%m/%d/%Y} 1:00 AM,,1,1,1,GREEN,< 0.1%,,,0,,,\n",
    "reports/report.xml": _DMARC.format(
        begin=int(datetime(_DAY.year, _DAY.month, _DAY.day, tzinfo=UTC).timestamp()),
        end=int(datetime(_DAY.year, _DAY.month, _DAY.day, tzinfo=UTC).timestamp()) + 86_399,
    ),
}

CAMPAIGNS = (
    ("campaign", "apply", "spring/campaign.yaml", "seeds.yaml", "trial.yaml"),
    ("audience", "import", "newsletter", "readers.csv"),
)


def settings_toml(nameserver: str) -> str:
    """Return settings with everybody that the pages name. ``nameserver``: address and port."""
    return f"""
public_url = "https://mail.example.com"
[dns]
nameservers = ["{nameserver}"]
[senders.news]
address = "news@example.com"
postal_address = "1 Post Road, Milestone"
route = "relay"
bounce_domain = "bounce.example.com"
[senders.news.warmup]
[senders.ada]
address = "ada@news.postroad.example"
postal_address = "1 Post Road, Milestone"
route = "relay"
[routes.relay]
host = "127.0.0.1"
port = 1
tls = "none"
[webhooks_out.shop]
url = "http://127.0.0.1:1/postroad"
allow_networks = ["127.0.0.0/8"]
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
[inbound]
smtp = "127.0.0.1:0"
[web]
port = 0
[console]
port = 0
[bounce.sources.box]
kind = "maildir"
path = "box"
"""
