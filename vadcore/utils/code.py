"""Compute digests of the code behind a result, so that results and checkpoints of other code are never reused."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("vadcore", "tasks")
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
        "tasks",
        "tasks.parallel",
        "tasks.paths",
        "tasks.stage",
    }
)
LOGGING = "tasks.tracking"  # logs results, decides none


def modules_behind(module: str) -> set[str]:
    """Return ``module`` and all modules of this project that it imports, directly or not, except :data:`DECIDES_NOTHING`."""
    found: set[str] = set()
    to_do = [module]
    while to_do:
        name = to_do.pop()
        if name not in found and (file := source(name)):
            found.add(name)
            to_do += [one for one in _read(file).imports if one not in DECIDES_NOTHING and not one.startswith(LOGGING)]
    return found


def source(module: str) -> Path | None:
    """Return the source file of a module of this project, or None if there is none (such as for a class name)."""
    base = ROOT.joinpath(*module.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()), None)


def code_digest(modules: Iterable[str]) -> str:
    """Return the SHA-256 of the code of ``modules`` and their imports, without comments, docstrings and layout."""
    behind = set().union(*map(modules_behind, modules))
    return hashlib.sha256(
        "".join(_read(file).code for module in sorted(behind) if (file := source(module))).encode()
    ).hexdigest()


class _Source(NamedTuple):
    """code: without comments and docstrings, in a normalised layout. imports: names of this project's modules, and perhaps
    of what is in them."""

    code: str
    imports: list[str]


@cache
def _read(file: Path) -> _Source:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
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
    return _Source(ast.unparse(tree), [name for name in imports if name.startswith(PACKAGES)])
