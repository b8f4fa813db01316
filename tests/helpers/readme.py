"""The examples of README.md and docs/extending.md, for tests that run them."""

import re

from tests.helpers.project import ROOT

TEXT = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/extending.md"))


def section(title: str) -> str:
    """The text of a section, up to the next heading of the same level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, f"neither README.md nor docs/extending.md has a section {title!r}"
    return found[1]


def blocks(title: str, language: str) -> list[str]:
    """The code blocks of a section in one language."""
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)


def commands(title: str) -> list[str]:
    """The shell commands of a section, without comments."""
    lines = [line.split(" #")[0].strip() for block in blocks(title, "sh") for line in block.splitlines()]
    return [line for line in lines if line]


def file_of(code: str) -> str:
    """The path in the comment on an example's first line."""
    return re.match(r"# (\S+\.py)\n", code)[1]
