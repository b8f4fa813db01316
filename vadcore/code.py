"""Which code decides a result: state made by other code is never taken up."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from vadcore.files import sha256_files

PACKAGE = Path(__file__).parent
# what decides no result: how params are read, errors worded, provenance and cost kept; and dispatchers whose parts are named
DECIDES_NOTHING = frozenset(
    {
        "vadcore",
        "vadcore.code",
        "vadcore.config",
        "vadcore.cost",
        "vadcore.datasets.config",
        "vadcore.errors",
        "vadcore.files",
        "vadcore.models",
        "vadcore.provenance",
        "vadcore.turns",
    }
)


def modules_behind(module: str, seen: set[str] | None = None) -> set[str]:
    """``module`` and everything of vadcore that it imports, directly or not, but for :data:`DECIDES_NOTHING`."""
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
    """The file of a module of this project; None where there is none (a class, say, and not a module)."""
    base = PACKAGE.parent.joinpath(*module.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()), None)


def code_digest(modules: Iterable[str]) -> str:
    """Identifies the code of ``modules`` and of all that they import."""
    behind = set().union(*(modules_behind(module) for module in modules))
    return sha256_files([source(module) for module in sorted(behind)])
