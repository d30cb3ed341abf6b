"""Checks the DKIM key records (RFC 6376) of the selectors in use."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from postroad.dns.dkim_key import PublicKey, has_other_version, is_dkim, parse_key
from postroad.dns.finding import Code, Finding, RecordVerdict, make_finding, txt_record
from postroad.dns.identity import Identity
from postroad.dns.lookup import Lookup, LookupStatus
from postroad.dns.resolver import Resolver
from postroad.dns.tags import RecordError, texts, unanswered_reason

MIN_BITS, GOOD_BITS = 1024, 2048


async def check(resolver: Resolver, identity: Identity) -> list[Finding]:
    """Check the keys of all selectors."""
    if not identity.selectors:
        remedy = "Name the selectors that mail is signed with: --dkim-selector, or dkim_selectors of the sender."
        return [make_finding(Code.DKIM_UNASKED, identity.domain, "no selector was named", remedy=remedy)]
    names = [f"{selector}._domainkey.{identity.domain}" for selector in identity.selectors]
    answers = await resolver.lookup_all(*((name, "TXT") for name in names))
    findings: list[Finding] = []
    algorithms: set[str] = set()
    for selector, name, answer in zip(identity.selectors, names, answers, strict=True):
        expected = identity.keys.get(selector, "")
        key = _parse(name, answer, expected)
        if isinstance(key, Finding):
            findings.append(key)
            continue
        algorithms.add(key.algorithm)
        bits = f", {key.bits} bits" if key.bits else ""
        faults = list(_assess(name, key, expected))
        findings += faults or [make_finding(Code.DKIM_OK, name, f"{key.algorithm}{bits}")]
    if algorithms == {"rsa"} and all(finding.verdict is RecordVerdict.PASS for finding in findings):
        remedy = "Sign with an Ed25519 key at a second selector as well."
        findings.append(make_finding(Code.DKIM_NO_ED25519, identity.domain, "all keys are RSA", remedy=remedy))
    return findings


def _parse(name: str, answer: Lookup, expected: str) -> PublicKey | Finding:
    if answer.status is LookupStatus.NO_ANSWER:
        return make_finding(Code.DKIM_UNKNOWN, name, unanswered_reason(answer))
    records = [text for text in texts(answer) if is_dkim(text)]
    if len(records) > 1:  # Verifiers discard records of another version (RFC 6376 §3.6.1).
        records = [text for text in records if not has_other_version(text)] or records[:1]
    publish = _proposal(name, expected)
    if not records:
        return make_finding(Code.DKIM_MISSING, name, "there is no key record", publish=publish)
    if len(records) > 1:
        remedy = "Delete all but the one that belongs to the private key in use."
        return make_finding(Code.DKIM_SEVERAL, name, f"{len(records)} key records", remedy=remedy, publish=publish)
    try:
        return parse_key(records[0])
    except RecordError as error:
        return make_finding(Code.DKIM_INVALID, name, str(error), publish=publish)


def _assess(name: str, key: PublicKey, expected: str) -> Iterator[Finding]:
    publish = _proposal(name, expected)
    if not key.octets:
        remedy = "Sign with another selector, or publish the public key of the one in use."
        yield make_finding(Code.DKIM_REVOKED, name, "p= is empty", remedy=remedy, publish=publish)
        return
    if expected and base64.b64encode(key.octets).decode() != "".join(expected.split()):
        seen = "the key in DNS is not that of the private key mail is signed with"
        yield make_finding(Code.DKIM_OTHER_KEY, name, seen, publish=publish)
    if key.algorithm == "rsa" and key.bits < MIN_BITS:
        yield make_finding(
            Code.DKIM_WEAK, name, f"RSA, {key.bits} bits", remedy="Make a key of 2048 bits at a new selector."
        )
    elif key.algorithm == "rsa" and key.bits < GOOD_BITS:
        yield make_finding(
            Code.DKIM_SHORT, name, f"RSA, {key.bits} bits", remedy="Make a key of 2048 bits at a new selector."
        )
    if key.faults:
        yield make_finding(Code.DKIM_FAULTS, name, "; ".join(key.faults), remedy="Correct the record.")
    if key.testing:
        yield make_finding(Code.DKIM_TESTING, name, "t=y", remedy="Take t=y out of the record.")


def _proposal(name: str, expected: str) -> str:
    if not expected:
        return txt_record(name, "v=DKIM1; k=rsa; p=BASE64-OF-THE-PUBLIC-KEY")
    algorithm = "ed25519" if len(base64.b64decode(expected)) == 32 else "rsa"
    return txt_record(name, f"v=DKIM1; k={algorithm}; p={''.join(expected.split())}")
