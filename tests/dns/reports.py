"""Reports of receivers: one of DMARC, one of TLS, and mails to which they are attached."""

from __future__ import annotations

import io
import zipfile
from email.message import EmailMessage
from typing import Any

RECORD = """
  <record>
    <row><source_ip>198.51.100.7</source_ip><count>12</count>
      <policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf></policy_evaluated></row>
    <identifiers><header_from>Acme.dev</header_from><envelope_from>b.acme.dev</envelope_from></identifiers>
    <auth_results><spf><domain>b.acme.dev</domain><result>fail</result></spf></auth_results>
  </record>"""

XML = f"""<?xml version="1.0" encoding="UTF-8"?>
<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">
  <version>1.0</version>
  <report_metadata><org_name>mail.test</org_name><email>d@mail.test</email><report_id>r-1</report_id>
    <date_range><begin>1790000000</begin><end>1790086399</end></date_range></report_metadata>
  <policy_published><domain>acme.dev</domain><p>reject</p><sp>none</sp><np>reject</np></policy_published>{RECORD}
</feedback>"""

TLS: dict[str, Any] = {
    "organization-name": "Mail Test",
    "date-range": {"start-datetime": "2026-11-01T00:00:00Z", "end-datetime": "2026-11-01T23:59:59Z"},
    "contact-info": "t@mail.test",
    "report-id": "t-1",
    "policies": [
        {
            "policy": {"policy-type": "sts", "policy-domain": "Acme.dev", "mx-host": ["mx.acme.dev"]},
            "summary": {"total-successful-session-count": 90, "total-failure-session-count": 10},
            "failure-details": [
                {
                    "result-type": "certificate-expired",
                    "sending-mta-ip": "203.0.113.9",
                    "receiving-mx-hostname": "MX.acme.dev",
                    "failed-session-count": 7,
                }
            ],
        }
    ],
}


def zipped(*files: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


def mail(*attachments: tuple[str, str, bytes]) -> bytes:
    message = EmailMessage()
    message["Subject"] = "Report Domain: acme.dev"
    message.set_content("Attached.")
    for kind, name, data in attachments:
        message.add_attachment(data, *kind.split("/"), filename=name)
    return message.as_bytes()


LAUGHS = '<!DOCTYPE feedback [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def tls(**members: Any) -> dict[str, Any]:
    """Return the valid report with members of its policy changed, or removed (None)."""
    [policy] = TLS["policies"]
    changed = {name.replace("_", "-"): value for name, value in members.items()}
    return TLS | {"policies": [{k: v for k, v in (policy | changed).items() if v is not None}]}


GOOD_DETAILS = TLS["policies"][0]["failure-details"][0]
