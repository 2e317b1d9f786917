"""Single changes of source code, made by the mutation operators of cosmic-ray."""

from __future__ import annotations

import ast
import difflib
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# One replacement an operator: all pairs of cosmic-ray (`a >> b` of floats) only make the score look better.
_BINARY = (
    "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_Div", "Pow_Mul", "BitAnd_BitOr",
    "BitOr_BitAnd",
)  # fmt: skip
_COMPARISON = (
    "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is",
)  # fmt: skip
OPERATORS = (
    *(f"ReplaceBinaryOperator_{pair}" for pair in _BINARY),
    *(f"ReplaceComparisonOperator_{pair}" for pair in _COMPARISON),
    "ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Invert", "ReplaceAndWithOr", "ReplaceOrWithAnd",
    "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop", "ExceptionReplacer",
    "RemoveDecorator",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: which operator, at which of its places in which file."""

    path: str  # relative to the repository
    operator: str
    occurrence: int  # counted over the places of this operator in the file
    line: int  # from 1
    key: str  # a digest that stays as it is when other lines of the file change

    def source(self) -> str:
        """The whole file with the change."""
        return _changed((ROOT / self.path).read_text(), self.operator, self.occurrence)

    def diff(self) -> str:
        """The lines taken out and put in."""
        lines = difflib.unified_diff(
            (ROOT / self.path).read_text().splitlines(), self.source().splitlines(), lineterm="", n=0
        )
        return "\n".join(line for line in lines if line[:3] not in ("---", "+++") and line[:2] != "@@")


def mutants_of(path: Path, seed: int) -> list[Mutant]:
    """All mutants of a file; annotations are left alone, as mypy holds them and nothing runs them."""
    from cosmic_ray.ast import ast_nodes, get_ast

    text, found = path.read_text(), []
    nodes, lines, same = list(ast_nodes(get_ast(text))), text.splitlines(), Counter[str]()
    relative = str(path.relative_to(ROOT))
    for name in OPERATORS:
        operator, occurrence = _operator(name), 0
        for node in nodes:
            for index, (start, _) in enumerate(operator.mutation_positions(node)):
                if not (_annotates(node) or _marks_parameters(node)):
                    place = f"{relative}|{name}|{index}|{lines[start[0] - 1].strip()}"
                    same[place] += 1
                    key = hashlib.sha256(f"{seed}|{place}|{same[place]}".encode()).hexdigest()[:16]
                    found.append(Mutant(relative, name, occurrence, start[0], key))
                occurrence += 1
    return found


def statement_lines(source: str, line: int) -> range:
    """Lines of the smallest statement around a line; of the head of a definition, all of it."""
    best = range(line, line + 1)
    width = float("inf")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt):
            continue
        decorators = getattr(node, "decorator_list", [])
        first, last = min([node.lineno, *(d.lineno for d in decorators)]), node.end_lineno or node.lineno
        body = getattr(node, "body", None)
        if body and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            last = max(first, body[0].lineno - 1)
        if first <= line <= last and last - first < width:
            best, width = range(first, last + 1), last - first
    return best


def runs_at_import(source: str, line: int) -> bool:
    """Whether a line is in no function's body: a constant, an attribute, a decorator, a default."""
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return not any(node.body[0].lineno <= line <= (node.end_lineno or 0) for node in functions)


@cache
def _changed(before: str, operator: str, occurrence: int) -> str:
    from cosmic_ray.mutating import mutate_code

    after = mutate_code(before, _operator(operator), occurrence)
    assert after is not None and after != before, (operator, occurrence)
    return str(after)


def _operator(name: str) -> Any:
    from cosmic_ray.operators.provider import OperatorProvider

    return OperatorProvider()[name]()


def _annotates(node: Any) -> bool:
    while (parent := node.parent) is not None:
        if parent.type == "tfpdef" or (parent.type == "annassign" and node is parent.children[1]):
            return True
        if parent.type == "funcdef" and node is parent.annotation:
            return True
        node = parent
    return False


def _marks_parameters(node: Any) -> bool:
    """Whether a node is the `*` or `/` between parameters, which cosmic-ray takes for arithmetic."""
    return node.type == "operator" and node.parent.type in ("parameters", "lambdef", "param")


def iterate_sources(patterns: tuple[str, ...]) -> Iterator[Path]:
    """Files of the package that match, in the order of their names."""
    for pattern in patterns:
        yield from sorted((ROOT / "src" / "fullrank").glob(pattern))
