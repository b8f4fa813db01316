"""Identify the code that decides a result, so that results and checkpoints of other code are never reused."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Modules that decide no result: how params are read, errors are worded, provenance and cost are kept. Data set formats and
# models are named by their users, so the packages that list them are left out, too.
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
    """``module`` and all modules of vadcore that it imports, directly or not, except :data:`DECIDES_NOTHING`."""
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
    """The file of a module of this project; None where there is none (the name is that of a class, say)."""
    base = ROOT.joinpath(*module.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()), None)


def code_digest(modules: Iterable[str]) -> str:
    """SHA-256 of the code of ``modules`` and of all that they import, without comments, docstrings and layout."""
    return _digest(tuple(sorted(modules)))


@cache
def _digest(modules: tuple[str, ...]) -> str:
    behind = set().union(*(modules_behind(module) for module in modules))
    digest = hashlib.sha256()
    for module in sorted(behind):
        digest.update(_without_prose(source(module)).encode())
    return digest.hexdigest()


def _without_prose(file: Path) -> str:
    """The code of ``file`` without comments and docstrings, in one layout."""
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
