"""The vocabulary of templates: the allowed filters, tests, methods and statements, and the cost of each.

Anything else is rejected when the template is compiled. docs/reference/campaign-file.md documents the vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from jinja2 import nodes
from jinja2.filters import FILTERS
from jinja2.tests import TESTS

from postroad.mail.budget import TemplateLimitError, require_keys, size_of

MAX_WIDTH: Final = 9_999
"""Maximum width of a column in a format, such as ``%20s`` or ``{:>20}``."""
MAX_DIGITS: Final = 4_000
"""Maximum number of digits of a number. Python's own limit is 4,300 (sys.set_int_max_str_digits)."""
_MAX_PRECISION: Final = 100


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


ON_VALUES: Final = words(
    "abs attr capitalize center count d default e escape filesizeformat float forceescape format indent int length "
    "lower replace round safe string striptags title tojson trim truncate upper urlencode wordcount wordwrap "
    "xmlattr"
)
"""Filters that process a value as a whole."""
ON_ELEMENTS: Final = words(
    "batch dictsort first groupby items join last list map max min random reject rejectattr reverse select "
    "selectattr slice sort sum unique"
)
"""Filters that process each element."""
ALLOWED_FILTERS: Final = ON_VALUES | ON_ELEMENTS
_SORTING: Final = frozenset({"dictsort", "groupby", "sort"})

ALLOWED_TESTS: Final = frozenset(TESTS) - {"filter", "test"}

TEXT_METHODS: Final = words(
    "capitalize casefold center count endswith find format format_map index isalnum isalpha isascii isdecimal isdigit "
    "islower isnumeric isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace "
    "rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill"
)
METHODS: Final[Mapping[type, frozenset[str]]] = {
    str: TEXT_METHODS,
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
}
"""Methods of values, by the type of the value."""

_REPLACEMENTS: Final[Mapping[str, str]] = {
    "pprint": "`tojson`",
    "urlize": 'an element: `<a href="{{ url }}">{{ url }}</a>`',
    "encode": "`urlencode`",
    "expandtabs": "`replace`",
    "translate": "`replace`",
    "format_map": "`format`",
}

REFUSED_STATEMENTS: Final[Mapping[type[nodes.Node], str]] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from",
    nodes.Extends: "extends",
}


def instead_of(name: str, kind: str) -> str:
    """Return advice for a forbidden word. ``kind``: "filters", "tests" or "methods"."""
    if name in _REPLACEMENTS:
        return f"Use {_REPLACEMENTS[name]} instead."
    known = {"filters": ALLOWED_FILTERS, "tests": ALLOWED_TESTS, "methods": TEXT_METHODS}[kind]
    names = ", ".join(sorted(word for word in known if word.isidentifier()))
    return f"The {kind} are: {names}."


def filter_cost(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return how many characters a filter will process in addition to its arguments.

    Args:
        name: The filter.
        args: Its positional arguments, the filtered value first.
        kwargs: Its keyword arguments.

    Returns:
        The number of characters.

    Raises:
        TemplateLimitError: An argument is out of bounds.
    """
    extra = _FACTORS.get(name, 0) * (size_of(args[0]) if args else 0)
    if name in ON_ELEMENTS:
        extra += _cost_of_elements(name, args, kwargs)
    if name in _COSTS:
        extra += _COSTS[name](args, kwargs)
    return extra


def method_cost(name: str, owner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return the cost of a method, as `filter_cost`. A search in a text costs the product of both lengths."""
    extra = size_of(owner) * (1 + _FACTORS.get(name, 0))
    if isinstance(owner, str):
        searched = sum(len(arg) for arg in args if isinstance(arg, str))
        extra += len(owner) * searched // 100
        if name in ("center", "ljust", "rjust", "zfill"):
            extra += _length(args[0] if args else 0)
        elif name == "replace":
            extra += _replace((owner, *args), kwargs)
        elif name == "join":
            extra += (_ELEMENT + len(owner)) * (_count(args[0]) if args else 0)
    return extra


def require_pairs(pairs: Any) -> None:
    """Check the keys of pairs from which a mapping is made. Raises TemplateLimitError, see `require_keys`."""
    if isinstance(pairs, Collection) and not isinstance(pairs, str | Mapping):
        lists = (pair for pair in pairs if isinstance(pair, Collection) and not isinstance(pair, str))
        require_keys(next(iter(pair), None) for pair in lists)


def percent_cost(pattern: str) -> int:
    """Return the total width of the columns of a ``%`` format. Raises TemplateLimitError for a forbidden format."""
    total, position = 0, pattern.find("%")
    while position >= 0:
        match = _PERCENT.match(pattern, position)
        if match is None:
            raise TemplateLimitError(
                f"a format of a text is not allowed in templates: its columns have at most {MAX_WIDTH:,} characters"
            )
        total += int(match[1] or 0) + int(match[2] or 0)
        position = pattern.find("%", match.end())
    return total


def require_format(spec: str) -> int:
    """Return the maximum number of characters that a format such as ``>20`` makes. Raises TemplateLimitError."""
    widths = [int(digits) for digits in re.findall(r"\d{1,5}", spec)]
    if any(width > MAX_WIDTH for width in widths):
        raise TemplateLimitError(f"the format of a value is wider than {MAX_WIDTH:,} characters")
    return sum(widths)


_PERCENT = re.compile(r"%(?:\(\w{1,64}\))?[#0\- +]{0,5}(\d{0,4})(?:\.(\d{0,4}))?[diouxXeEfFgGcrsa%]")
_ELEMENT = 8

# Time for each character, in multiples of reading it once.
_FACTORS: Final[Mapping[str, int]] = {
    "filesizeformat": 4,
    "indent": 2,
    "striptags": 4,
    "title": 9,
    "tojson": 4,
    "truncate": 2,
    "urlencode": 9,
    "wordcount": 4,
    "wordwrap": 29,
    "xmlattr": 9,
    "split": 2,
    "splitlines": 2,
    "rsplit": 2,
}


def _cost_of_elements(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return the cost of a filter that processes each element together with all other arguments."""
    count = _count(args[0]) if args else 0
    others = _ELEMENT + sum(map(size_of, args[1:])) + sum(map(size_of, kwargs.values()))
    extra = count * others
    if name in _SORTING:
        extra += (_ELEMENT * count + size_of(args[0])) * count.bit_length()
    return extra


def _count(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict | range) else 0


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], position: int, name: str, default: Any) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def _length(value: Any) -> int:
    """Return a number of characters to make, 0 for any other value."""
    return max(value, 0) if isinstance(value, int) else 0


def _center(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    return _length(_argument(args, kwargs, 1, "width", 80))


def _indent(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    width = _argument(args, kwargs, 1, "width", 4)
    lines = 1 + (len(args[0].splitlines()) if isinstance(args[0], str) else 0)
    return lines * (len(width) if isinstance(width, str) else _length(width))


def _wordwrap(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    # A word longer than a line is copied for each of its lines.
    width, wrap = _argument(args, kwargs, 1, "width", 79), _argument(args, kwargs, 3, "wrapstring", "")
    size = size_of(args[0])
    lines = size // max(_length(width), 1)
    return size * lines // 100 + lines * (100 + size_of(wrap)) + size_of(wrap) * (size // 2)


def _replace(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    old, new = _argument(args, kwargs, 1, "old", ""), _argument(args, kwargs, 2, "new", "")
    if isinstance(args[0], str) and isinstance(old, str):
        return len(args[0]) * len(old) // 100 + args[0].count(old) * size_of(new)
    return size_of(args[0]) * (1 + size_of(new))


def _batch(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    return _ELEMENT * _length(_argument(args, kwargs, 1, "linecount", 0))


def _slice(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    return _ELEMENT * _ELEMENT * _length(_argument(args, kwargs, 1, "slices", 0))


def _round(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    precision = _argument(args, kwargs, 1, "precision", 0)
    if isinstance(precision, int) and abs(precision) > _MAX_PRECISION:
        raise TemplateLimitError(f"the precision of round is more than {_MAX_PRECISION}")
    return 0


def _number(args: Sequence[Any], _kwargs: Mapping[str, Any]) -> int:
    if args and isinstance(args[0], str) and len(args[0]) > MAX_DIGITS:
        raise TemplateLimitError(f"a number has more than {MAX_DIGITS:,} digits")
    return 0


def _tojson(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    if _argument(args, kwargs, 1, "indent", None) is not None:
        raise TemplateLimitError("tojson takes no indent in templates")
    return 0


def _format(args: Sequence[Any], _kwargs: Mapping[str, Any]) -> int:
    return percent_cost(args[0]) if args and isinstance(args[0], str) else 0


def _sum(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    # A sum of lists creates a list for each element, each longer than the last.
    start = _argument(args, kwargs, 2, "start", 0)
    if not isinstance(start, int | float):
        raise TemplateLimitError("sum adds only numbers")
    return 0


def _unique(args: Sequence[Any], _kwargs: Mapping[str, Any]) -> int:
    # Each element may be compared with all others: a template can make lists whose hashes collide.
    if not isinstance(args[0], Collection) or all(isinstance(element, str | int | float) for element in args[0]):
        return 0
    return len(args[0]) * size_of(args[0]) // 50


def _trim(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    return size_of(args[0]) * size_of(_argument(args, kwargs, 1, "chars", "")) // 100


_COSTS: Final[Mapping[str, Callable[[Sequence[Any], Mapping[str, Any]], int]]] = {
    "batch": _batch,
    "center": _center,
    "float": _number,
    "format": _format,
    "indent": _indent,
    "int": _number,
    "replace": _replace,
    "round": _round,
    "slice": _slice,
    "sum": _sum,
    "tojson": _tojson,
    "trim": _trim,
    "unique": _unique,
    "wordwrap": _wordwrap,
}

FUNCTIONS: Final = {name: FILTERS[name] for name in sorted(ALLOWED_FILTERS)}
"""The allowed filters, as implemented by Jinja."""
