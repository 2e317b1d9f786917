"""The private words that this code base once had do not come back: the field has words of its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

# what each was, and what it is called now; no such word stands anywhere, prose included
COMPOUNDS = {
    "EmbedWishes": "EmbedOptions",
    "Wishes": "AuditOptions",
    "ForeignModel": "Encoder",
    "sent_ahead": "prefetch",
    "failures_words": "analysis",
    "own_size": "default_image_size",
    "lloyd": "kmeans",
    "closer look": "diagnostics",
    "study-every": "diagnostics-every",
}
# no class has these names
CLASSES = {
    "Looking": "EpochEvaluator",
    "Evaluation": "HeldOutEvaluator",
    "Journal": "RecordWriter",
    "When": "StepInfo",
    "Progress": "TrainState or OnProgress",
    "Found": "OpenedTable",
    "Reading": "TapSummary",
    "Worth": "EvaluationResult",
    "Told": "OnStatus",
    "Draws": "RandomNumbers",
    "Cell": "Job or TableCell",
}
# no module and no function has these names
FUNCTIONS = {
    "look": "style",
    "draw": "plot",
    "reads": "selectors",
    "typed": "coerce",
    "need": "require",
}
# nothing that is defined has these among the words of its name
PARTS = {
    "wishes": "options",
    "worth": "result",
    "journal": "records or writer",
    "looking": "evaluator",
    "told": "notify or label",
    "redrawn": "reinitialized",
    "settle": "materialize or finish",
    "study": "diagnostics",
    "nulls": "baselines",
}
HERE = Path(__file__)


def _definitions(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """Kind, name and line of all that a module defines; tests, whose names are sentences, left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield "class", node.name, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("test_"):
                yield "function", node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield "parameter", node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield "variable", node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield "attribute", node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield "alias", node.asname, node.lineno


def _words(name: str) -> set[str]:
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))


def _says(kind: str, name: str) -> str | None:
    """What to call it instead, or None where the name is fine."""
    if kind == "class" and name.lstrip("_") in CLASSES:
        return CLASSES[name.lstrip("_")]
    if kind in ("function", "module") and name.lstrip("_") in FUNCTIONS:
        return FUNCTIONS[name.lstrip("_")]
    return next((PARTS[word] for word in sorted(_words(name)) if word in PARTS), None)


def _bad_names(path: Path) -> Iterator[str]:
    found = [("module", path.stem, 1)] if not path.stem.startswith("test_") else []
    found += _definitions(ast.parse(path.read_text()))
    for kind, name, line in found:
        if better := _says(kind, name):
            yield f"{path.relative_to(ROOT)}:{line}: {kind} {name}: {better}"


@pytest.mark.parametrize("old", COMPOUNDS)
def test_a_word_of_our_own_stands_nowhere(old: str) -> None:
    word = re.compile(rf"(?<![A-Za-z]){re.escape(old)}(?![a-z])")
    texts = {path: path.read_text() for path in (*SOURCES, *PAGES) if path != HERE}
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if word.search(line)
    ]
    assert found == [], f"say {COMPOUNDS[old]}"


def test_nothing_is_defined_under_a_name_of_our_own() -> None:
    found = [line for path in SOURCES if path != HERE for line in _bad_names(path)]
    assert found == [], "\n".join(found)
