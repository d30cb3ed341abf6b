"""Name resolution in templates: every column of an audience is a merge field, even if Jinja reserves its name.

========================================  ==============================================================================
name                                      meaning
========================================  ==============================================================================
range, dict, cycler, joiner, namespace    the function if it is called, else the column
self                                      `self.NAME` is the block NAME if there is one, else the column
super                                     the column; there is no parent template
loop                                      in a loop the state of the loop, which is not text; elsewhere the column
caller, varargs, kwargs                   in a macro or call block Jinja's objects, not text; elsewhere the column
true, false, none                         constants, which are not text
not                                       an operator
========================================  ==============================================================================

Writing a reserved word as text is an error when the template is compiled. The error names the word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from postroad.errors import ConfigError
from postroad.mail.vocabulary import words

FUNCTIONS: Final = frozenset({"cycler", "dict", "joiner", "namespace", "range"})
CALLED, FIELD = "called function", "merge field"
"""Filters of the rewritten template. A template cannot use these names, because they contain a blank."""

_OF_MACROS: Final = frozenset({"caller", "kwargs", "varargs"})
_RENAME = "Rename the column, and apply the campaign again."
_TEXT_FILTERS: Final = words(
    "capitalize center e escape forceescape format indent lower replace string striptags title trim truncate upper "
    "urlencode wordwrap"
)
_TEXT_METHODS: Final = words(
    "capitalize casefold center format ljust lower lstrip removeprefix removesuffix replace rjust rstrip strip "
    "swapcase title upper zfill"
)
_LIST_METHODS: Final = frozenset({"split", "rsplit", "splitlines"})


def resolve_names(template: nodes.Template) -> frozenset[str]:
    """Rewrite a parsed template so that merge fields take precedence over Jinja's names. See this module's table.

    Args:
        template: The template, which is changed.

    Returns:
        Merge fields that the rewritten template looks up by a filter instead of a name.

    Raises:
        ConfigError: A reserved word, or a method that is not called, would be written as text.
    """
    resolver = _Resolver(template)
    resolver.visit(template)
    return frozenset(resolver.looked_up)


def own_word_error(name: str, what: str, line: int) -> ConfigError:
    """Return the error for a merge field whose name is reserved in templates."""
    return ConfigError(
        f"the name {name} {what} of templates, so a column {name} cannot be a merge field here",
        where=f"line {line}",
        remedy=_RENAME,
    )


class _Resolver(NodeTransformer):
    def __init__(self, template: nodes.Template) -> None:
        self.looked_up: set[str] = set()
        self._variables = {name.name for name in template.find_all(nodes.Name) if name.ctx != "load"}
        self._macros = {macro.name for macro in template.find_all(nodes.Macro)}
        self._assigned = self._variables | self._macros
        self._blocks = {block.name for block in template.find_all(nodes.Block)}
        self._in_loop = self._in_macro = False

    def visit_Name(self, node: nodes.Name) -> nodes.Node:  # noqa: N802  (Jinja's names, here and below)
        if node.name in ("self", "super") and node.name not in self._assigned:
            self.looked_up.add(node.name)
            return _by(nodes.Const(node.name, lineno=node.lineno), FIELD)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        callee = node.node
        if isinstance(callee, nodes.Name):
            if callee.name == "super" and "super" not in self._assigned:
                raise ConfigError("super() has no parent template to call", where=f"line {node.lineno}")
            if callee.name in FUNCTIONS:
                own = callee if callee.name in self._assigned else nodes.Const(None, lineno=node.lineno)
                node.node = _by(own, CALLED, nodes.Const(callee.name, lineno=node.lineno))
        elif isinstance(callee, nodes.Getattr | nodes.Getitem | nodes.Filter):
            if callee.node is not None and not self._is_block(callee):
                self._require_no_constant(callee.node)
                callee.node = self.visit(callee.node)
            self._visit_all(callee, skip="node")
        else:
            node.node = self.visit(callee)
        self._visit_all(node, skip="node")
        return node

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:  # noqa: N802
        if self._is_block(node):
            return node
        self._require_no_method(node.node, node.attr, node.lineno)
        self._require_no_constant(node.node)
        return self.generic_visit(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        if self._is_block(node):
            return node
        if isinstance(node.arg, nodes.Const):
            self._require_no_method(node.node, node.arg.value, node.lineno)
        self._require_no_constant(node.node)
        return self.generic_visit(node)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        if node.node is not None:
            match node:
                case nodes.Filter(name="attr", args=[nodes.Const(value=attribute), *_]):
                    self._require_no_method(node.node, attribute, node.lineno)
                case nodes.Filter(name=name) if name in _TEXT_FILTERS:
                    self._require_texts(node.node)
        return self.generic_visit(node)

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self._require_texts(*node.nodes)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self._require_texts(*node.nodes)
        return self.generic_visit(node)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        node.iter = self.visit(node.iter)
        self._visit_all(node, skip="iter", only=("target", "else_"))
        self._within(node, ("body", "test"), loop=True, macro=self._in_macro)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        self._within(node, node.fields, loop=self._in_loop, macro=True)
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        node.call = self.visit(node.call)
        self._within(node, ("args", "defaults", "body"), loop=self._in_loop, macro=True)
        return node

    def visit_Block(self, node: nodes.Block) -> nodes.Node:  # noqa: N802
        self._within(node, node.fields, loop=False, macro=False)  # A block does not see the scopes around it.
        return node

    def _within(self, node: nodes.Node, fields: tuple[str, ...], *, loop: bool, macro: bool) -> None:
        outer = self._in_loop, self._in_macro
        self._in_loop, self._in_macro = loop, macro
        self._visit_all(node, only=fields)
        self._in_loop, self._in_macro = outer

    def _visit_all(self, node: nodes.Node, *, skip: str = "", only: tuple[str, ...] | None = None) -> None:
        for field in only or node.fields:
            value = getattr(node, field)
            if field == skip:
                continue
            if isinstance(value, list):
                setattr(node, field, [self.visit(item) if isinstance(item, nodes.Node) else item for item in value])
            elif isinstance(value, nodes.Node):
                setattr(node, field, self.visit(value))

    def _is_block(self, node: nodes.Node) -> bool:
        match node:
            case nodes.Getattr(node=nodes.Name(name="self"), attr=name):
                return name in self._blocks
            case nodes.Getitem(node=nodes.Name(name="self"), arg=nodes.Const(value=name)):
                return name in self._blocks
            case _:
                return False

    def _require_texts(self, *expressions: nodes.Expr) -> None:
        """Reject expressions that are written as text and are not text. Raises ConfigError."""
        for expression in expressions:
            for shown in _shown(expression):
                self._require_no_constant(shown)
                if isinstance(shown, nodes.Name):
                    self._require_text(shown.name, shown.lineno)

    def _require_text(self, name: str, line: int) -> None:
        if name in self._variables:
            return
        if name in self._macros:
            raise ConfigError(
                f"the macro {name} is shown as text", where=f"line {line}", remedy=f"Write {name}() to call it."
            )
        if name == "loop" and self._in_loop:
            raise own_word_error(name, "is the state of a loop in loops", line)
        if name in _OF_MACROS and self._in_macro:
            raise own_word_error(name, "has a meaning of its own in the macros", line)

    def _require_no_constant(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.Const) and (node.value is None or isinstance(node.value, bool)):
            raise own_word_error(str(node.value).lower(), "is a constant", node.lineno)

    def _require_no_method(self, owner: nodes.Expr, name: Any, line: int) -> None:
        kind = self._type_of(owner)
        public = isinstance(name, str) and not name.startswith("_")
        if kind is not None and public and callable(getattr(kind, name, None)):
            raise ConfigError(
                f"the method {name} is used as a value: () is missing after its name",
                where=f"line {line}",
                remedy=f"Write {name}(…) to call it.",
            )

    def _type_of(self, node: nodes.Node) -> type | None:
        """Return the type of an expression if the template alone determines it. Merge fields are strings."""
        match node:
            case nodes.Name(name=name):
                special = name in self._assigned or name in _OF_MACROS or (name == "loop" and self._in_loop)
                return None if special else str
            case nodes.Const(value=str()) | nodes.TemplateData() | nodes.Concat():
                return str
            case nodes.Filter(node=nodes.Expr() as value, name=name):
                if name in _TEXT_FILTERS:
                    return str
                return self._type_of(value) if name in ("d", "default", "safe") else None
            case nodes.Call(node=nodes.Getattr(node=owner, attr=name)) if self._type_of(owner) is str:
                return str if name in _TEXT_METHODS else list if name in _LIST_METHODS else None
            case nodes.Getitem(node=owner, arg=arg):
                kind = self._type_of(owner)
                return kind if isinstance(arg, nodes.Slice) else str if kind is not None and _is_index(arg) else None
            case _:
                return None


def _is_index(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, int)


def _shown(expression: nodes.Expr) -> Iterator[nodes.Expr]:
    """Yield the possible results of an expression that chooses between others."""
    choices: list[nodes.Expr | None]
    match expression:
        case nodes.CondExpr(expr1=first, expr2=second):
            choices = [first, second]
        case nodes.Or(left=left, right=right) | nodes.And(left=left, right=right):
            choices = [left, right]
        case nodes.Filter(node=node, name="d" | "default", args=args):
            choices = [node, *args[:1]]
        case _:
            yield expression
            return
    for choice in choices:
        if choice is not None:
            yield from _shown(choice)


def _by(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
