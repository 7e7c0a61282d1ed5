"""Which changes of a file are tried as mutants (`scripts/mutants.py`)."""

import ast
import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OPPOSITES: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
CLOCKS = {"anyio.current_time()", "time.monotonic()", "loop.time()", "self._log.back_for"}
AT_CLOCKS: dict[type[ast.cmpop], str] = {ast.Lt: ">=", ast.LtE: ">", ast.Gt: "<=", ast.GtE: "<"}
"""Where the process's clock is read and compared in one breath: nobody sees whether the very nanosecond counts."""
TOLD_ONLY = {"log", "span", "tracer"}
"""What only tells: no test has to notice that it is gone."""
FOR_POWER_CUTS = {"file.flush()", "os.fsync(file.fileno())"}
"""What makes a file's content survive a power cut: nothing else shows that it is gone."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file below a root, as the whole new text."""

    path: Path
    line: int
    last_line: int
    text: str

    @property
    def name(self) -> str:
        """Its place, and what tells it from others there."""
        return f"{self.path}:{self.line} {hashlib.sha256(self.text.encode()).hexdigest()[:8]}"

    @property
    def module(self) -> str:
        return ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")

    def diff(self, root: Path) -> str:
        before, after = (root / self.path).read_text("utf-8").splitlines(), self.text.splitlines()
        return "\n".join(difflib.unified_diff(before, after, str(self.path), str(self.path), n=2, lineterm=""))


def mutants_of(root: Path, path: Path) -> Iterator[Mutant]:
    """Yield every change of a file that this knows to make."""
    source = (root / path).read_text("utf-8")
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]
    tree = ast.parse(source)
    declared = {id(part) for node in ast.walk(tree) for part in declarations_of(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr | ast.stmt) or id(node) in declared:
            continue
        for changed in changes_of(node):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
            text = source.encode()[:begin] + changed.encode() + source.encode()[end:]
            yield Mutant(path, node.lineno, node.end_lineno or node.lineno, text.decode())


def declarations_of(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what declares rather than does: decorators, the keywords of classes (`frozen=True`), zip's `strict`."""
    match node:
        case ast.ClassDef(decorator_list=parts, keywords=keywords):
            for part in (*parts, *keywords):
                yield from ast.walk(part)
        case ast.Call(func=ast.Name(id="zip"), keywords=keywords):
            for keyword in keywords:
                yield from ast.walk(keyword)


def changes_of(node: ast.AST) -> Iterator[str]:
    """Yield what may stand in a node's place."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in OPPOSITES:
            opposite = (AT_CLOCKS if reads_a_clock(node) else OPPOSITES).get(type(op), OPPOSITES[type(op)])
            yield f"({ast.unparse(left)} {opposite} {ast.unparse(right)})"
        case ast.BoolOp(op=op, values=values):
            word = " or " if isinstance(op, ast.And) else " and "
            yield "(" + word.join(f"({ast.unparse(value)})" for value in values) + ")"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            yield f"({ast.unparse(left)} {'-' if isinstance(op, ast.Add) else '+'} {ast.unparse(right)})"
        case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())) if not only_tells(node):
            yield "pass"
        case ast.AugAssign():
            yield "pass"


def reads_a_clock(comparison: ast.Compare) -> bool:
    parts = [ast.unparse(part) for part in ast.walk(comparison) if isinstance(part, ast.Call | ast.Attribute)]
    return not CLOCKS.isdisjoint(parts)


def only_tells(statement: ast.Expr) -> bool:
    """Return whether a statement is there for who reads logs and traces, or for power cuts."""
    call = statement.value.value if isinstance(statement.value, ast.Await) else statement.value
    tells = isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[0] in TOLD_ONLY
    return tells or ast.unparse(call) in FOR_POWER_CUTS
