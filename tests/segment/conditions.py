"""Random conditions, also such that hold for some of the random people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from postroad.field_types import FieldType
from tests.segment.people_fields import AUDIENCES, FIELDS, TEXTS


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(name: str) -> str:
    return f'"{name}"' if name == "in" else name


_durations = st.sampled_from(("7d", "'7d'", "1ms", "30d", "12h", "1.5d", "'30d'"))

_of_type = {kind: [_name(name) for name, its in FIELDS.items() if its is kind] for kind in FieldType}

_literal_texts = [quoted(text) for text in TEXTS if text and len(text) < 1_000]

_numbers_literal = ["0", "5", "-5", "0.1", "0.3", "1e3", "9007199254740992", "1000", "9e99", "- 5"]

_dates_literal = [quoted(text) for text in ("2026-05-04", "2026-05-04 08:30", "2026-05-04T08:30:15.25Z", "1000-01-01")]

_raw = st.sampled_from([*_of_type[FieldType.TEXT], "domain()", "provider()", "address", "time_zone"])

_event_raw = st.sampled_from(["plan", "seats", "trial_ends", "news", "city"])


def _terms(
    raw: st.SearchStrategy[str], own: Mapping[FieldType, Sequence[str]]
) -> dict[FieldType, st.SearchStrategy[str]]:
    """Terms of each type over fields that are text, and over fields with types."""
    text = raw | raw.map("lower({})".format) | raw.map("text({})".format)
    if own[FieldType.NUMBER]:
        text |= st.sampled_from([*own[FieldType.NUMBER], *own[FieldType.DATE]]).map("text({})".format)
    number, date = raw.map("number({})".format), raw.map("date({})".format) | st.just("now()")
    if own[FieldType.NUMBER]:
        number |= st.sampled_from(own[FieldType.NUMBER])
        date |= st.sampled_from(own[FieldType.DATE])
    shifted = st.builds("{} {} {}".format, date, st.sampled_from("+-"), _durations)
    return {FieldType.TEXT: text, FieldType.NUMBER: number, FieldType.DATE: date | shifted}


_LITERALS = {FieldType.TEXT: _literal_texts, FieldType.NUMBER: _numbers_literal, FieldType.DATE: _dates_literal}

_OPERATORS = st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="])

_NOT = st.sampled_from(["", "NOT "])


def _comparisons(terms: Mapping[FieldType, st.SearchStrategy[str]]) -> st.SearchStrategy[str]:
    found = []
    for kind, term in terms.items():
        literal = st.sampled_from(_LITERALS[kind])
        either = term | literal
        found += [
            st.builds("{} {} {}".format, term, _OPERATORS, either),
            st.builds("{} {} {}".format, literal, _OPERATORS, term),
            st.builds("{} {}IN ({})".format, term, _NOT, st.lists(literal, min_size=1, max_size=3).map(", ".join)),
            st.builds("{} {}BETWEEN {} AND {}".format, term, _NOT, either, either),
            st.builds("{} IS {}NULL".format, term, _NOT),
        ]
    patterns = st.text(st.sampled_from("ab%_*?[]\\'TRé😀"), min_size=1, max_size=6).filter(lambda text: text.strip("'"))
    found.append(st.builds("{} {}LIKE {}".format, terms[FieldType.TEXT], _NOT, patterns.map(quoted)))
    escaped = st.lists(st.sampled_from(["a", "b", "%", "_", "!%", "!_", "!!", "\\", "*"]), min_size=1, max_size=5)
    found.append(
        st.builds("{} {}LIKE {} ESCAPE '!'".format, terms[FieldType.TEXT], _NOT, escaped.map("".join).map(quoted))
    )
    return st.one_of(found)


def _combined(clauses: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        clauses,
        lambda inner: (
            st.builds("({} AND {})".format, inner, inner)
            | st.builds("({} OR {})".format, inner, inner)
            | st.builds("NOT ({})".format, inner)
            | st.builds("{} and {}".format, inner, inner)
            | st.builds("{} or {}".format, inner, inner)
        ),
        max_leaves=5,
    )


_event_conditions = _combined(_comparisons(_terms(_event_raw, {kind: [] for kind in FieldType})))

_calls = st.one_of(
    st.sampled_from([f"in_audience('{name}')" for name in (*AUDIENCES, "nowhere")]),
    st.builds("joined({})".format, st.just("") | _durations),
    st.builds(
        "accepted({})".format, st.sampled_from(["", "'hello'", "'deeper'", "7d", "'hello', 7d", "within => '30d'"])
    ),
    st.builds("{}({})".format, st.sampled_from(["bounced", "replied", "mailed"]), st.just("") | _durations),
    st.just("unsubscribed()"),
    st.builds("event('{}')".format, st.sampled_from(["paid", "signed-up", "never"])),
    st.builds("event('paid', {})".format, _durations),
    st.builds("event('paid', where => {})".format, _event_conditions),
    st.builds("event('signed-up', {}, {})".format, _durations, _event_conditions),
)

_yes_no = st.sampled_from(
    ["news", "NOT news", "news = true", "news != 'yes'", "news IN (true, false)", "news NOT IN ('no')", "news IS NULL"]
)

conditions = _combined(_comparisons(_terms(_raw, _of_type)) | _calls | _yes_no)
