"""Names of metrics and labels in a PromQL expression. `promtool` checks its grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

OF_PROMETHEUS = {"job", "instance", "service"}
"""Labels that the scrape adds: see deployments/prometheus/prometheus.yaml."""

_SELECTOR = re.compile(r"\b((?:postroad_\w+)|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class Selector(NamedTuple):
    """One metric of an expression, and the labels that it is selected by."""

    metric: str
    labels: frozenset[str]


def selectors(expression: str) -> list[Selector]:
    """Return the metrics that an expression reads."""
    plain = _STRING.sub('""', expression)
    return [Selector(name, frozenset(_MATCHER.findall(labels))) for name, labels in _SELECTOR.findall(plain)]


def grouped_by(expression: str) -> set[str]:
    """Return the labels that an expression groups or joins by."""
    return {label for labels in _GROUPING.findall(_STRING.sub('""', expression)) for label in _words(labels)}


def _words(labels: str) -> Iterator[str]:
    return (label.strip() for label in labels.split(",") if label.strip())


def unknown_names(expression: str, served: dict[str, set[str]]) -> list[str]:
    """Return what an expression names and no process serves."""
    read = selectors(expression)
    known = {label for selector in read for label in served.get(selector.metric, ())} | OF_PROMETHEUS
    return [
        *(selector.metric for selector in read if selector.metric not in served and selector.metric != "up"),
        *(
            f"{selector.metric}{{{label}}}"
            for selector in read
            for label in selector.labels - served.get(selector.metric, set()) - OF_PROMETHEUS
        ),
        *grouped_by(expression) - known,
    ]
