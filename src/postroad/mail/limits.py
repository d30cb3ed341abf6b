"""Jinja2's sandbox with resource limits.

The sandbox restricts what a template can access, but not nested loops or a text of three gigabytes. A worker merges
messages between two sends, so a template that does not end would stop all mail.

A template is rewritten before it is compiled. Operations that the compiler would turn into plain Python (comparisons,
``~``, slices, list literals) become filters that charge the budget of the rendering (`postroad.mail.budget`).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from jinja2 import Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, TemplateReference, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Cycler, Joiner, Namespace, _PassArg
from jinja2.visitor import NodeTransformer

from postroad.errors import ConfigError
from postroad.mail.budget import MAX_BITS, MAX_LENGTH, LimitedContext, TemplateLimitError, size_of
from postroad.mail.lexing import LimitedTokens
from postroad.mail.limited_format import limited_format
from postroad.mail.names import CALLED, FIELD
from postroad.mail.names import FUNCTIONS as OWN_FUNCTIONS
from postroad.mail.vocabulary import (
    ALLOWED_FILTERS,
    ALLOWED_TESTS,
    FUNCTIONS,
    METHODS,
    REFUSED_STATEMENTS,
    TEXT_METHODS,
    filter_cost,
    instead_of,
    method_cost,
    percent_cost,
    require_pairs,
)

# Filters of the rewritten template. A template cannot use these names, because they contain a blank.
_COUNTED, _CHARGED, _READ, _MADE, _JOINED = "counted loop", "charged body", "read value", "made value", "joined values"
_OBJECTS = (Macro, LoopContext, BlockReference, TemplateReference, Namespace, Cycler, Joiner)
_NODES_PER_STEP = 4
_CALL = 40  # characters whose processing takes as long as a call


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """A Jinja environment whose renderings raise TemplateLimitError when they exceed a limit."""

    context_class = LimitedContext
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, **options: Any) -> None:
        # optimized: Jinja's optimizer would evaluate constant expressions during compilation, without a limit.
        super().__init__(optimized=False, finalize=_finalize, extensions=[LimitedTokens], **options)
        self.filters = {name: _limited_filter(name, function) for name, function in FUNCTIONS.items()}
        self.filters |= {CALLED: _called, FIELD: _field}
        self.filters |= {_COUNTED: _counted, _CHARGED: _charged, _READ: _read, _MADE: _made, _JOINED: _joined}
        self.tests = {name: _limited_test(TESTS[name]) for name in ALLOWED_TESTS}
        # Not global names of templates: see postroad.mail.names.
        self._functions = {name: function for name, function in self.globals.items() if name in OWN_FUNCTIONS}
        self.globals.clear()

    def limited(self, template: nodes.Template) -> nodes.Template:
        """Rewrite a parsed template so that its rendering is limited.

        Args:
            template: The template, which is changed.

        Returns:
            The rewritten template.

        Raises:
            ConfigError: The template uses a forbidden word. ``where`` is its line.
        """
        return cast(nodes.Template, _Limiter().visit(template))

    def function(self, name: str) -> Callable[..., Any]:
        """Return one of Jinja's own functions."""
        return cast(Callable[..., Any], self._functions[name])

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        return isinstance(obj, _OBJECTS) or attr in _methods_of(obj)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        return limited_format(self, value) if wrapped is not None else None

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  (as Jinja's own)
        context = cast(LimitedContext, __context)
        given = {name: value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars")}
        context.read(*args, *given.values(), extra=_CALL + __self._call_cost(__obj, args, given))
        if isinstance(__obj, LoopContext) and args:  # a recursive loop
            args = (context.counted(args[0]), *args[1:])
        return context.made(super().call(context, __obj, *args, **kwargs))

    def _call_cost(self, obj: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        """Return how many characters a call processes in addition to its arguments. Raises SecurityError."""
        if isinstance(obj, (*_OBJECTS, Undefined)) or not callable(obj) or hasattr(obj, "limited_format"):
            return 0
        if obj is dict:
            require_pairs(args[0] if args else None)
        owner = getattr(obj, "__self__", None)
        if isinstance(obj, types.MethodType | types.BuiltinMethodType) and obj.__name__ in _methods_of(owner):
            return method_cost(obj.__name__, owner, args, kwargs)
        if isinstance(owner, Cycler | LoopContext) or any(obj is function for function in self._functions.values()):
            return 0
        raise SecurityError(f"{obj!r} is not safely callable")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        limited = cast(LimitedContext, context)
        extra = 0
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            if (left.bit_length() - 1) * right > MAX_BITS:
                raise TemplateLimitError(f"a whole number has more than {MAX_BITS} bits")
        elif operator == "*" and not (isinstance(left, int) and isinstance(right, int)):
            sized, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(times, int) and hasattr(sized, "__len__"):
                extra = size_of(sized) * max(times, 0)
                if extra > MAX_LENGTH:
                    raise TemplateLimitError(f"a value is larger than {MAX_LENGTH:,} characters")
        elif operator == "%" and isinstance(left, str):
            extra = percent_cost(left)
        limited.read(left, right, extra=extra)
        return limited.made(super().call_binop(context, operator, left, right))


def _methods_of(obj: Any) -> frozenset[str]:
    return next((names for kind, names in METHODS.items() if isinstance(obj, kind)), frozenset())


@pass_context
def _finalize(context: LimitedContext, value: Any) -> Any:
    """Charge for a value that is written. Objects that hold Jinja's state are rejected: they are not text."""
    if isinstance(value, _OBJECTS):
        raise SecurityError(f"{type(value).__name__.lower()} is written as text: only values can be")
    context.read(value)
    return value


@pass_context
def _called(context: LimitedContext, variable: Any, name: str) -> Any:
    """Return the function to call: the template's variable of that name unless it is text, else Jinja's function."""
    if variable is None or isinstance(variable, str | Undefined):
        return cast(LimitedEnvironment, context.environment).function(name)
    return variable


@pass_context
def _field(context: LimitedContext, name: str) -> Any:
    return context.resolve(name)


@pass_context
def _counted(context: LimitedContext, items: Any, steps: int) -> Any:
    return context.counted(items, steps)


@pass_context
def _charged(context: LimitedContext, steps: int) -> None:
    context.charge(steps)


@pass_context
def _read(context: LimitedContext, value: Any) -> Any:
    context.read(value)
    return value


@pass_context
def _made(context: LimitedContext, value: Any) -> Any:
    return context.made(value)


@pass_context
def _joined(context: LimitedContext, values: tuple[Any, ...]) -> Any:
    """Concatenate values, as ``~`` does."""
    context.read(*values)
    return context.made(markup_join(values) if context.eval_ctx.autoescape else str_join(values))


def _limited_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    extra_argument = _PassArg.from_obj(function)

    @pass_context
    def limited(context: LimitedContext, *args: Any, **kwargs: Any) -> Any:
        context.read(*args, *kwargs.values(), extra=filter_cost(name, args, kwargs))
        match extra_argument:
            case _PassArg.context:
                args = (context, *args)
            case _PassArg.eval_context:
                args = (context.eval_ctx, *args)
            case _PassArg.environment:
                args = (context.environment, *args)
        return context.made(function(*args, **kwargs))

    return limited


def _limited_test(function: Any) -> Callable[..., Any]:
    @pass_context
    def limited(context: LimitedContext, *args: Any) -> Any:
        context.read(*args)
        return function(*args)

    return limited


class _Limiter(NodeTransformer):
    """Rewrites a template: a filter that charges for its work does each operation that costs more than a step."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if type(node) in REFUSED_STATEMENTS:
            raise ConfigError(
                f"{{% {REFUSED_STATEMENTS[type(node)]} %}} is not available in templates",
                where=f"line {node.lineno}",
                remedy="Write what it would bring into the template itself.",
            )
        return super().generic_visit(node, *args, **kwargs)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802  (Jinja's names, here and below)
        allowed = node.name in ALLOWED_FILTERS or node.name in (CALLED, FIELD)
        _require(allowed, node, f"the filter {node.name}", instead_of(node.name, "filters"))
        return self.generic_visit(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        _require(node.name in ALLOWED_TESTS, node, f"the test {node.name}", instead_of(node.name, "tests"))
        return self.generic_visit(node)

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        if isinstance(node.node, nodes.Getattr):
            name = node.node.attr
            known = not hasattr(str, name) or name in TEXT_METHODS or name.startswith("_")
            _require(known, node, f"the method {name}", instead_of(name, "methods"))
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _by(nodes.Tuple(node.nodes, "load", lineno=node.lineno), _JOINED)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _read_first(node.expr)
        for operand in node.ops:
            operand.expr = _read_first(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):  # Jinja does not pass slices through its sandbox.
            node.node = _read_first(node.node)
        else:
            node.arg = _read_first(node.arg)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802
        if isinstance(node.value, int) and node.value.bit_length() > MAX_BITS:
            raise ConfigError(
                f"a whole number has more than {MAX_BITS} bits",
                where=f"line {node.lineno}",
                remedy="Write it in quotes, as text.",
            )
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._literal(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        for pair in node.items:
            if isinstance(pair.key, nodes.Tuple):
                raise ConfigError(
                    "a key of a mapping is a list", where=f"line {pair.lineno}", remedy="Keys are texts and numbers."
                )
        return self._literal(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._literal(node) if node.ctx == "load" else self.generic_visit(node)

    def _literal(self, node: nodes.Expr) -> nodes.Node:
        constant = all(isinstance(descendant, _CONSTANT) for descendant in node.find_all(nodes.Node))
        rewritten = self.generic_visit(node)
        return rewritten if constant else _by(rewritten, _MADE)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        steps = nodes.Const(_steps([node.test] if node.test is not None else []), lineno=node.lineno)
        node.iter = _by(node.iter, _COUNTED, steps)
        return _charge_body(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return _charge_body(self.generic_visit(node))

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return _charge_body(self.generic_visit(node))

    def visit_Block(self, node: nodes.Block) -> nodes.Node:  # noqa: N802
        # The compiler would copy all variables of the template into each scoped block.
        if node.scoped:
            raise ConfigError(
                "{% block … scoped %} is not available in templates",
                where=f"line {node.lineno}",
                remedy="Write a macro with parameters instead.",
            )
        return _charge_body(self.generic_visit(node))


_CONSTANT = (nodes.Const, nodes.TemplateData, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair)


def _require(allowed: bool, node: nodes.Node, what: str, remedy: str) -> None:
    if not allowed:
        raise ConfigError(f"{what} is not available in templates", where=f"line {node.lineno}", remedy=remedy)


def _by(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _read_first(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _by(node, _READ)


def _charge_body(node: Any) -> nodes.Node:
    """Insert a charge at the start of a body, for its nodes, its text and the parameters of a macro."""
    parameters = [*node.args, *node.defaults] if isinstance(node, nodes.Macro | nodes.CallBlock) else []
    steps = nodes.Const(_steps([*parameters, *node.body]), lineno=node.lineno)
    node.body.insert(0, nodes.ExprStmt(_by(steps, _CHARGED), lineno=node.lineno))
    return cast(nodes.Node, node)


def _steps(body: Sequence[nodes.Node]) -> int:
    parts = [part for node in body for part in (node, *node.find_all(nodes.Node))]
    characters = sum(len(part.data) for part in parts if isinstance(part, nodes.TemplateData))
    return 1 + len(parts) // _NODES_PER_STEP + characters // 10
