"""Compute digests of the code behind a result, so that results and checkpoints of other code are never reused."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Modules that do not affect results: reading of params, error messages, provenance, cost. The packages that list formats
# and models are also excluded, because callers name the format or model modules explicitly.
DECIDES_NOTHING = frozenset(
    {
        "vadcore",
        "vadcore.config",
        "vadcore.data.formats",
        "vadcore.data.formats.base",
        "vadcore.models",
        "vadcore.utils.code",
        "vadcore.evaluation.cost",
        "vadcore.utils.errors",
        "vadcore.utils.files",
        "vadcore.utils.folders",
        "vadcore.utils.provenance",
        "vadcore.utils.schema",
        "vadcore.utils.turns",
    }
)


def modules_behind(module: str, seen: set[str] | None = None) -> set[str]:
    """Return ``module`` and all vadcore modules that it imports, directly or not, except :data:`DECIDES_NOTHING`."""
    seen = set() if seen is None else seen
    file = source(module)
    if module in seen or module in DECIDES_NOTHING or file is None:
        return seen
    seen.add(module)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("vadcore"):
                modules_behind(name, seen)
    return seen


def source(module: str) -> Path | None:
    """Return the source file of a module of this project, or None if there is none (such as for a class name)."""
    base = ROOT.joinpath(*module.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()), None)


def code_digest(modules: Iterable[str]) -> str:
    """Return the SHA-256 of the code of ``modules`` and their imports, without comments, docstrings and layout."""
    return _digest(tuple(sorted(modules)))


@cache
def _digest(modules: tuple[str, ...]) -> str:
    behind = set().union(*(modules_behind(module) for module in modules))
    digest = hashlib.sha256()
    for module in sorted(behind):
        if file := source(module):
            digest.update(_without_prose(file).encode())
    return digest.hexdigest()


def _without_prose(file: Path) -> str:
    """Return the code of ``file`` without comments and docstrings, in a normalised layout."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [
                part
                for part in node.body
                if not (
                    isinstance(part, ast.Expr)
                    and isinstance(part.value, ast.Constant)
                    and isinstance(part.value.value, str)
                )
            ] or [ast.Pass()]
    return ast.unparse(tree)
