"""Every finding there is: its word, its verdict, and why it matters."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, StrEnum


class RecordVerdict(StrEnum):
    """How a finding bears on mail."""

    PASS = "pass"  # noqa: S105  (a word, and no secret)
    INFO = "info"  # an optional feature that is missing
    UNKNOWN = "unknown"  # DNS gave no answer: nothing is known, and nothing is held against the domain
    WARN = "warn"
    FAIL = "fail"


_SEVERITY = (RecordVerdict.PASS, RecordVerdict.INFO, RecordVerdict.UNKNOWN, RecordVerdict.WARN, RecordVerdict.FAIL)


def worst(verdicts: Iterable[RecordVerdict]) -> RecordVerdict:
    """Return the gravest verdict; of none, pass."""
    return max(verdicts, key=_SEVERITY.index, default=RecordVerdict.PASS)


class Standard(StrEnum):
    """What is checked, in the order in which it is shown."""

    SPF = "SPF"
    DKIM = "DKIM"
    DMARC = "DMARC"
    MX = "MX"
    PTR = "PTR"
    DNSBL = "DNSBL"
    MTA_STS = "MTA-STS"
    TLS_RPT = "TLS-RPT"
    DANE = "DANE"
    BIMI = "BIMI"
    CANARY = "CANARY"
    BULK_SENDER = "LARGE-SENDER"  # as reports that are stored have it

    @property
    def is_about_sending(self) -> bool:
        """Whether receivers judge mail *from* the domain by it. The others protect mail to it, or adorn it."""
        return self in _SENDING


_SENDING = frozenset({Standard.SPF, Standard.DKIM, Standard.DMARC, Standard.MX, Standard.PTR, Standard.DNSBL})


class Code(Enum):
    """Every finding there is: docs/reference/dns-findings.md lists them."""

    SPF_OK = "spf.ok", RecordVerdict.PASS, "Receivers can tell which hosts may use this domain in the return path."
    SPF_UNKNOWN = "spf.unknown", RecordVerdict.UNKNOWN, "DNS gave no answer, so the check has no result."
    SPF_MISSING = (
        "spf.missing",
        RecordVerdict.FAIL,
        "Large receivers reject mail without SPF or DKIM, and bulk mail without both.",
    )
    SPF_SEVERAL = (
        "spf.several",
        RecordVerdict.FAIL,
        "With two records every check results in permerror (RFC 7208 §4.5).",
    )
    SPF_INVALID = "spf.invalid", RecordVerdict.FAIL, "An invalid record results in permerror: SPF never passes."
    SPF_LOOKUPS_OVER = (
        "spf.lookups-over",
        RecordVerdict.FAIL,
        "With more than ten lookups a check results in permerror (§4.6.4).",
    )
    SPF_VOID_OVER = (
        "spf.void-over",
        RecordVerdict.FAIL,
        "With more than two void lookups a check may result in permerror (§4.6.4).",
    )
    SPF_PLUS_ALL = (
        "spf.plus-all",
        RecordVerdict.FAIL,
        "Every host may send for this domain: receivers classify its mail as spam.",
    )
    SPF_NOT_COVERED = "spf.not-covered", RecordVerdict.FAIL, "Mail from this address does not pass SPF."
    SPF_LOOKUPS_MANY = (
        "spf.lookups-many",
        RecordVerdict.WARN,
        "If an included record adds one more include, the limit of ten may be exceeded.",
    )
    SPF_PTR = "spf.ptr", RecordVerdict.WARN, "`ptr` is slow and unreliable, and should not be used (RFC 7208 §5.5)."
    SPF_NEUTRAL_ALL = (
        "spf.neutral-all",
        RecordVerdict.WARN,
        "With ?all, hosts that are not named are neutral: forgeries are accepted.",
    )
    SPF_AFTER_ALL = "spf.after-all", RecordVerdict.WARN, "Receivers never evaluate terms after `all` (RFC 7208 §5.1)."
    SPF_NO_ALL = (
        "spf.no-all",
        RecordVerdict.WARN,
        "Without `all` or `redirect`, hosts that are not named are neutral: forgeries are accepted.",
    )

    DKIM_OK = "dkim.ok", RecordVerdict.PASS, "Receivers can verify signatures made with this key."
    DKIM_UNKNOWN = "dkim.unknown", RecordVerdict.UNKNOWN, "DNS gave no answer, so the check has no result."
    DKIM_UNASKED = "dkim.unasked", RecordVerdict.INFO, "Keys are looked up by selector, and no selector was given."
    DKIM_MISSING = "dkim.missing", RecordVerdict.FAIL, "Signatures that name this selector cannot be verified."
    DKIM_REVOKED = "dkim.revoked", RecordVerdict.FAIL, "An empty p= means that the key is revoked (RFC 6376 §3.6.1)."
    DKIM_INVALID = "dkim.invalid", RecordVerdict.FAIL, "Signatures that name this selector cannot be verified."
    DKIM_SEVERAL = "dkim.several", RecordVerdict.FAIL, "With two records the outcome is undefined (RFC 6376 §3.6.2.2)."
    DKIM_OTHER_KEY = (
        "dkim.other-key",
        RecordVerdict.FAIL,
        "Signatures made with the private key do not verify with this public key.",
    )
    DKIM_WEAK = "dkim.weak", RecordVerdict.FAIL, "RSA keys below 1024 bits must not be accepted (RFC 8301 §3.2)."
    DKIM_SHORT = "dkim.short", RecordVerdict.WARN, "1024 bits are the minimum; signers should use 2048 (RFC 8301 §3.2)."
    DKIM_TESTING = "dkim.testing", RecordVerdict.WARN, "t=y asks receivers to treat signed mail as unsigned."
    DKIM_FAULTS = (
        "dkim.faults",
        RecordVerdict.WARN,
        "Most receivers ignore these faults; a strict one may reject the key (RFC 6376 §3.6.1).",
    )
    DKIM_NO_ED25519 = (
        "dkim.no-ed25519",
        RecordVerdict.INFO,
        "Ed25519 keys are short and strong, for a second signature in addition to RSA (RFC 8463).",
    )

    DMARC_OK = "dmarc.ok", RecordVerdict.PASS, "Receivers know what to do with mail that forges this domain."
    DMARC_UNKNOWN = "dmarc.unknown", RecordVerdict.UNKNOWN, "DNS gave no answer, so the check has no result."
    DMARC_MISSING = (
        "dmarc.missing",
        RecordVerdict.FAIL,
        "Google, Yahoo and Microsoft reject bulk mail from domains without DMARC.",
    )
    DMARC_SEVERAL = (
        "dmarc.several",
        RecordVerdict.FAIL,
        "If there are several records, receivers ignore all of them (RFC 9989 §4.10).",
    )
    DMARC_INVALID = "dmarc.invalid", RecordVerdict.FAIL, "Receivers do not apply this record: see RFC 9989 §4.10.1."
    DMARC_UNALIGNED = (
        "dmarc.unaligned",
        RecordVerdict.FAIL,
        "Neither SPF nor DKIM is aligned with the From domain: DMARC fails.",
    )
    DMARC_SPF_UNALIGNED = (
        "dmarc.spf-unaligned",
        RecordVerdict.WARN,
        "SPF passes for another domain: DMARC depends on DKIM alone.",
    )
    DMARC_NONE = (
        "dmarc.none",
        RecordVerdict.WARN,
        "p=none asks receivers to deliver forgeries; BIMI needs quarantine or reject.",
    )
    DMARC_SUBDOMAINS = (
        "dmarc.subdomains",
        RecordVerdict.WARN,
        "Forgeries of subdomains are delivered although those of the domain are not.",
    )
    DMARC_NO_REPORTS = (
        "dmarc.no-reports",
        RecordVerdict.WARN,
        "Without rua you get no reports about who sends with your domain.",
    )
    DMARC_TAGS = (
        "dmarc.tags",
        RecordVerdict.WARN,
        "Receivers ignore these tags: they have no effect, or not the intended one.",
    )
    DMARC_FAULTS = (
        "dmarc.faults",
        RecordVerdict.WARN,
        "Receivers ignore these faults, and apply the rest of the record (RFC 9989 §4.7).",
    )
    DMARC_REPORT_URI = (
        "dmarc.report-uri",
        RecordVerdict.WARN,
        "RFC 9989 has no sizes, and receivers need to report to mailto: only.",
    )
    DMARC_REPORTS_LOST = "dmarc.reports-lost", RecordVerdict.WARN, "Reports to a domain that accepts no mail are lost."
    DMARC_TESTING = (
        "dmarc.testing",
        RecordVerdict.WARN,
        "t=y asks receivers for one step less than the policy (RFC 9989 §4.7).",
    )
    DMARC_REPORTS_REFUSED = (
        "dmarc.reports-refused",
        RecordVerdict.WARN,
        ("Reports are sent to another domain only if that domain publishes its consent (RFC 9990)."),
    )

    MX_OK = "mx.ok", RecordVerdict.PASS, "Replies and bounces can be delivered."
    MX_UNKNOWN = "mx.unknown", RecordVerdict.UNKNOWN, "DNS gave no answer, so the check has no result."
    MX_NO_DOMAIN = "mx.no-domain", RecordVerdict.FAIL, "Receivers reject mail from a domain that does not exist."
    MX_MISSING = (
        "mx.missing",
        RecordVerdict.FAIL,
        "Receivers reject mail from a domain that accepts no mail; replies and bounces are lost.",
    )
    MX_NULL = (
        "mx.null",
        RecordVerdict.FAIL,
        "A null MX means that the domain neither accepts nor sends mail (RFC 7505).",
    )
    MX_IMPLICIT = (
        "mx.implicit",
        RecordVerdict.WARN,
        "Mail is sent to the domain's own address, which may not be a mail host.",
    )
    MX_NO_ADDRESS = "mx.no-address", RecordVerdict.FAIL, "No mail host can be reached."
    MX_DEAD_HOST = "mx.dead-host", RecordVerdict.WARN, "Senders waste their time on a mail host that has no address."

    MX_CNAME = (
        "mx.cname",
        RecordVerdict.WARN,
        "The name in an MX record must not be an alias (RFC 2181 §10.3); some senders reject it.",
    )

    PTR_OK = "ptr.ok", RecordVerdict.PASS, "The address has a name that resolves to the address."
    PTR_UNKNOWN = "ptr.unknown", RecordVerdict.UNKNOWN, "DNS gave no answer, so the check has no result."
    PTR_UNASKED = "ptr.unasked", RecordVerdict.INFO, "No sending address was given."
    PTR_MISSING = "ptr.missing", RecordVerdict.FAIL, "Large receivers reject mail from an address without a name."
    PTR_UNCONFIRMED = "ptr.unconfirmed", RecordVerdict.FAIL, "A name counts only if it resolves to the address."
    PTR_GENERIC = (
        "ptr.generic",
        RecordVerdict.WARN,
        "Generic names are typical of dial-up lines: many receivers reject them.",
    )
    HELO_OTHER = (
        "ptr.helo-differs",
        RecordVerdict.FAIL,
        "A host that greets with a name that is not its own looks like a bot.",
    )
    HELO_NOT_FOUND = (
        "ptr.helo-not-found",
        RecordVerdict.FAIL,
        "The name in EHLO must resolve to an address (RFC 5321 §2.3.5).",
    )

    STS_OK = "mta-sts.ok", RecordVerdict.PASS, "Mail to the domain goes to its own mail hosts, over TLS."
    STS_UNKNOWN = "mta-sts.unknown", RecordVerdict.UNKNOWN, "DNS gave no answer, so the check has no result."
    STS_ABSENT = "mta-sts.absent", RecordVerdict.INFO, "Mail to the domain can be read or diverted on its way."
    STS_INVALID = "mta-sts.invalid", RecordVerdict.FAIL, "An unavailable or invalid policy has no effect."
    STS_DISAGREES = (
        "mta-sts.disagrees",
        RecordVerdict.FAIL,
        "Senders do not deliver to mail hosts that the policy does not name.",
    )
    STS_TESTING = (
        "mta-sts.testing",
        RecordVerdict.WARN,
        "In testing mode, mail is delivered without protection, and failures are only reported.",
    )

    TLS_RPT_OK = "tls-rpt.ok", RecordVerdict.PASS, "Senders report when TLS to the domain's mail hosts fails."
    TLS_RPT_UNKNOWN = "tls-rpt.unknown", RecordVerdict.UNKNOWN, "DNS gave no answer, so the check has no result."
    TLS_RPT_ABSENT = "tls-rpt.absent", RecordVerdict.INFO, "You get no reports when TLS to your mail hosts fails."
    TLS_RPT_INVALID = "tls-rpt.invalid", RecordVerdict.FAIL, "An invalid record has no effect."
    TLS_RPT_FAULTS = "tls-rpt.faults", RecordVerdict.WARN, "Senders that are strict may not report (RFC 8460 §3)."

    DANE_OK = "dane.ok", RecordVerdict.PASS, "DNSSEC authenticates the certificates of the mail hosts."
    DANE_UNKNOWN = "dane.unknown", RecordVerdict.UNKNOWN, "DNS gave no answer, so the check has no result."
    DANE_ABSENT = "dane.absent", RecordVerdict.INFO, "DNS does not authenticate the certificates of the mail hosts."
    DANE_UNSIGNED = (
        "dane.unsigned",
        RecordVerdict.INFO,
        "TLSA records count only if DNSSEC validates them (RFC 7672 §2.2).",
    )
    DANE_UNUSABLE = (
        "dane.unusable",
        RecordVerdict.FAIL,
        "Unusable records require TLS and make its authentication impossible.",
    )
    DANE_SOME = "dane.some", RecordVerdict.WARN, "An attacker picks the mail host that is not protected."

    BIMI_OK = "bimi.ok", RecordVerdict.PASS, "Receivers that show logos can find yours."
    BIMI_UNKNOWN = "bimi.unknown", RecordVerdict.UNKNOWN, "DNS gave no answer, so the check has no result."
    BIMI_ABSENT = "bimi.absent", RecordVerdict.INFO, "Receivers that show logos have no logo of yours."
    BIMI_INVALID = "bimi.invalid", RecordVerdict.INFO, "An invalid record has no effect."
    BIMI_NEEDS_DMARC = "bimi.needs-dmarc", RecordVerdict.INFO, "Logos are shown only if DMARC is quarantine or reject."

    DNSBL_OK = "dnsbl.ok", RecordVerdict.PASS, "The list has no entry for it."
    DNSBL_UNKNOWN = "dnsbl.unknown", RecordVerdict.UNKNOWN, "DNS gave no answer, so the check has no result."
    DNSBL_REFUSED = (
        "dnsbl.refused",
        RecordVerdict.UNKNOWN,
        "127.255.255.x means that the list gave no answer, never a listing.",
    )
    DNSBL_LISTED = "dnsbl.listed", RecordVerdict.FAIL, "Receivers that use this list reject the mail."
    DNSBL_POLICY = (
        "dnsbl.policy",
        RecordVerdict.WARN,
        "According to the network's owner, no mail should be sent from here directly.",
    )

    CANARY_OK = "canary.ok", RecordVerdict.PASS, "The receiver's results are those that DNS implies."
    CANARY_TEMPORARY = "canary.temporary", RecordVerdict.UNKNOWN, "The receiver temporarily got no answer from DNS."
    CANARY_UNSAID = "canary.unsaid", RecordVerdict.WARN, "A receiver that reports no result may not have checked."
    CANARY_UNPROMISED = (
        "canary.unpromised",
        RecordVerdict.WARN,
        "It passes only because of the receiver's DNS cache, and will soon fail.",
    )
    CANARY_NO_RESULTS = (
        "canary.no-results",
        RecordVerdict.WARN,
        "Without results of the named host there is nothing to compare.",
    )
    CANARY_DIFFERS = (
        "canary.differs",
        RecordVerdict.FAIL,
        "The mail is not sent as DNS describes: another address, key or domain.",
    )
    CANARY_FAILS = "canary.fails", RecordVerdict.FAIL, "The receiver's results confirm what is missing in DNS."
    CANARY_REFUSED = (
        "canary.refused",
        RecordVerdict.FAIL,
        "Other mail on this route is likely to fare the same as the canary.",
    )
    CANARY_LOST = "canary.lost", RecordVerdict.FAIL, "It was filed as spam, dropped, or is delayed very long."

    BULK_SMALL = "large-sender.small", RecordVerdict.PASS, "The rules for bulk senders do not apply to it yet."
    BULK_NEAR = (
        "large-sender.near",
        RecordVerdict.WARN,
        "From 5,000 a day, mail without aligned SPF, DKIM and DMARC is rejected. For Google it stays a bulk sender.",
    )
    BULK_MET = "large-sender.met", RecordVerdict.PASS, "The rules for bulk senders apply to it, and its DNS complies."
    BULK_OPEN = (
        "large-sender.open",
        RecordVerdict.INFO,
        "The rules for bulk senders apply to it; its compliance could not be determined.",
    )
    BULK_UNMET = (
        "large-sender.unmet",
        RecordVerdict.FAIL,
        "Receivers reject mail of bulk senders that break their rules.",
    )

    def __init__(self, word: str, verdict: RecordVerdict, why: str) -> None:
        self.word = word
        self.verdict = verdict
        self.why = why

    @property
    def standard(self) -> Standard:
        return Standard(self.word.partition(".")[0].upper())
