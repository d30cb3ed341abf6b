"""Targets of the delivery benchmark, and its report when a peer did not run."""

from __future__ import annotations

from benchmarks.contestants import Pace
from benchmarks.delivery import ONE, RSA, SECOND, SIGNED, SOURCE, Found
from benchmarks.mailers import NODEMAILER, OUR_ENTRIES, OURS, PEERS, Entry, Signing

CELERY = PEERS[1].name


def found(**rates: float) -> Found:
    filled = Found()
    for label, rate in rates.items():
        filled.paces[label] = [Pace(rate, 100.0)]
    return filled


def test_every_signature_is_measured_with_one_and_two_processes() -> None:
    labels = [entry.label for entry in OUR_ENTRIES]
    assert len(set(labels)) == 2 * len(Signing)
    assert "postroad" in labels
    assert "postroad, DKIM rsa-2048 and ed25519, two processes" in labels


def test_a_target_needs_only_the_peers_that_it_names() -> None:
    ran = found(**{OURS: 5_000.0, CELERY: 300.0})
    figures = {(figure.measure, figure.peer): figure for figure in ran.figures()}
    assert figures[ONE.name, CELERY].ok
    assert figures[ONE.name, CELERY].bar == 1
    assert (figures[ONE.name, NODEMAILER].theirs, figures[ONE.name, NODEMAILER].ok) == (None, False)
    assert {key for key in figures if key[0] == SIGNED.name} == {(SIGNED.name, NODEMAILER), (SIGNED.name, RSA)}
    assert not figures[SECOND.name, None].ok


def test_ratios_use_the_peer_with_the_same_signature() -> None:
    signed = Signing.RSA
    ran = found(
        **{
            OURS: 6_000.0,
            Entry(OURS, processes=2).label: 12_000.0,
            Entry(OURS, signed).label: 3_000.0,
            NODEMAILER: 1_000.0,
            Entry(NODEMAILER, signed).label: 400.0,
            SOURCE: 10_000.0,
            RSA: 4_000.0,
        }
    )
    figures = {(figure.measure, figure.peer): figure for figure in ran.figures()}
    assert (figures[ONE.name, NODEMAILER].ratio, figures[ONE.name, NODEMAILER].ok) == (6, False)
    assert (figures[SIGNED.name, NODEMAILER].ratio, figures[SIGNED.name, NODEMAILER].ok) == (7.5, True)
    assert figures[ONE.name, SOURCE].ok
    assert figures[SIGNED.name, RSA].ok
    assert figures[SECOND.name, None].ours == 2
