"""Values of terms as SQL. Each dialect reads text, numbers and dates as `postroad.field_types` does.

Every value of a condition is a parameter. The SQL consists of our own words.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from postroad.field_types import (
    DATE_PATTERN,
    LOWER_LETTERS,
    NO,
    NUMBER_PATTERN,
    UPPER_LETTERS,
    YES,
    ZONE_PATTERN,
    FieldType,
    to_ms,
)
from postroad.segment.patterns import to_glob
from postroad.segment.tree import (
    Conversion,
    CurrentTime,
    DateLiteral,
    LowerCase,
    MergeField,
    NumberLiteral,
    RecipientColumn,
    RecipientDomain,
    RecipientProvider,
    ShiftedDate,
    Term,
    TextLiteral,
    YesNoLiteral,
    type_of,
)
from postroad.store.types import sql_time


class Parameters:
    """Collects the parameters of one statement, under names with a prefix."""

    def __init__(self, prefix: str) -> None:
        self.values: dict[str, Any] = {}
        self._prefix = prefix
        self._names: dict[tuple[type, Any], str] = {}

    def add(self, value: str | float) -> str:
        """Return the placeholder of a value. Equal values share one."""
        key = type(value), value
        if key not in self._names:
            self._names[key] = f"{self._prefix}_{len(self._names) + 1}"
            self.values[self._names[key]] = value
        return f":{self._names[key]}"


class SqlDialect(Protocol):
    """How a database reads values."""

    @property
    def name(self) -> str:
        """The name that SQLAlchemy has for it."""
        ...

    def text(self, row: str, field: str) -> str:
        """Return the text of a field, or NULL. ``row``: the column with the object; ``field``: a placeholder."""
        ...

    def read(self, text: str, kind: FieldType, parameters: Parameters) -> str:
        """Return the value that a text contains, or NULL if it contains none."""
        ...

    def lower(self, text: str, parameters: Parameters) -> str:
        """Return a text in lower case."""
        ...

    def like(self, text: str, pattern: str, parameters: Parameters) -> str:
        """Return the comparison of a text with a pattern."""
        ...

    def ordered(self, text: str) -> str:
        """Return a text that compares by code points."""
        ...

    def time(self, placeholder: str) -> str:
        """Return a parameter that is a time, to compare it with a column."""
        ...


def _yes_no(text: str) -> str:
    words = (", ".join(f"'{word}'" for word in words) for words in (YES, NO))
    return "CASE WHEN {0} IN ({1}) THEN TRUE WHEN {0} IN ({2}) THEN FALSE END".format(text, *words)


class SqliteDialect:
    """SQLite reads fields, numbers, dates and lower case with the functions that `postroad.store.engine` registers."""

    name: Final = "sqlite"

    def text(self, row: str, field: str) -> str:
        return f"postroad_field({row}, {field})"

    def read(self, text: str, kind: FieldType, parameters: Parameters) -> str:
        match kind:
            case FieldType.NUMBER:
                return f"postroad_number({text})"
            case FieldType.DATE:
                return f"postroad_date_ms({text})"
            case FieldType.YES_NO:
                return _yes_no(f"lower({text})")
        return text

    def lower(self, text: str, parameters: Parameters) -> str:
        return f"postroad_lower({text})"

    def like(self, text: str, pattern: str, parameters: Parameters) -> str:
        return f"{text} GLOB {parameters.add(to_glob(pattern))}"

    def ordered(self, text: str) -> str:
        return text

    def time(self, placeholder: str) -> str:
        return placeholder


class PostgresqlDialect:
    """PostgreSQL reads values with patterns, so that no cast can fail."""

    name: Final = "postgresql"

    def text(self, row: str, field: str) -> str:
        name = f"CAST({field} AS text)"
        return f"CASE jsonb_typeof({row} -> {name}) WHEN 'string' THEN NULLIF({row} ->> {name}, '') END"

    def read(self, text: str, kind: FieldType, parameters: Parameters) -> str:
        match kind:
            case FieldType.NUMBER:
                pattern = parameters.add(f"^({NUMBER_PATTERN})$")
                return f"CASE WHEN {text} ~ {pattern} THEN CAST({text} AS double precision) END"
            case FieldType.DATE:
                pattern, zone = parameters.add(f"^({DATE_PATTERN})$"), parameters.add(f"{ZONE_PATTERN}$")
                # A cast without a time zone would use that of the session.
                with_zone = f"CASE WHEN {text} ~ {zone} THEN {text} ELSE {text} || 'Z' END"
                seconds = f"extract(epoch FROM CAST({with_zone} AS timestamptz))"
                return f"CASE WHEN {text} ~ {pattern} THEN CAST(floor({seconds} * 1000) AS bigint) END"
            case FieldType.YES_NO:
                return _yes_no(f"""lower({text} COLLATE "C")""")
        return text

    def lower(self, text: str, parameters: Parameters) -> str:
        return f"translate({text}, {parameters.add(UPPER_LETTERS)}, {parameters.add(LOWER_LETTERS)})"

    def like(self, text: str, pattern: str, parameters: Parameters) -> str:
        return rf"""{text} COLLATE "C" LIKE {parameters.add(pattern)} ESCAPE '\'"""

    def ordered(self, text: str) -> str:
        return f'({text}) COLLATE "C"'

    def time(self, placeholder: str) -> str:
        return f"CAST({placeholder} AS timestamptz)"


DIALECTS: Final[dict[str, SqlDialect]] = {dialect.name: dialect for dialect in (SqliteDialect(), PostgresqlDialect())}


class ValueWriter:
    """Writes terms as SQL. ``row``: the column with the merge fields, or with the fields of an event."""

    def __init__(self, dialect: SqlDialect, parameters: Parameters, now: datetime, row: str) -> None:
        self.dialect = dialect
        self.parameters = parameters
        self._now = now
        self._row = row

    def value(self, term: Term) -> str:
        """Return the SQL of a term's value. It is NULL if the term has none. Dates are ms since the epoch."""
        add = self.parameters.add
        match term:
            case MergeField():
                return self.dialect.read(self._text(term), term.type, self.parameters)
            case Conversion():
                inner = term.term
                text = self._text(inner) if isinstance(inner, MergeField) else self.value(inner)
                return self.dialect.read(text, term.to, self.parameters)
            case TextLiteral() | NumberLiteral():
                return add(term.value)
            case YesNoLiteral():
                return "TRUE" if term.value else "FALSE"
            case DateLiteral():
                return self._whole(term.at_ms)
            case CurrentTime():
                return self._whole(to_ms(self._now))
            case ShiftedDate():
                return f"({self.value(term.term)} + {self._whole(term.by_ms)})"
            case LowerCase():
                return self.dialect.lower(self.value(term.term), self.parameters)
            case RecipientColumn():
                return f"recipient.{'address' if term.name == 'address' else 'time_zone'}"
            case RecipientDomain():
                return "recipient.domain"
            case RecipientProvider():
                return "(SELECT mail_domain.provider FROM mail_domain WHERE mail_domain.domain = recipient.domain)"

    def comparable(self, term: Term) -> str:
        """Return the SQL of a term's value, so that it compares in the same way on all databases."""
        value = self.value(term)
        return self.dialect.ordered(value) if type_of(term) is FieldType.TEXT else value

    def since(self, within_ms: int) -> str:
        """Return the SQL of the time that a length of the past began at."""
        return self.at(self._now - timedelta(milliseconds=within_ms))

    def now(self) -> str:
        """Return the SQL of the current time."""
        return self.at(self._now)

    def at(self, time: datetime) -> str:
        """Return the SQL of a time, to compare it with a column."""
        return self.dialect.time(self.parameters.add(sql_time(time, self.dialect.name)))

    def _text(self, field: MergeField) -> str:
        return self.dialect.text(self._row, self.parameters.add(field.name))

    def _whole(self, number: int) -> str:
        return f"CAST({self.parameters.add(number)} AS bigint)"
