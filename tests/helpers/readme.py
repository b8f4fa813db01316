"""The README's examples, for tests that do what it says."""

import re

from tests.helpers.project import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """What stands below a heading, up to the next one of its rank."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, f"README.md has no section {title!r}"
    return found[1]


def blocks(title: str, language: str) -> list[str]:
    """The code blocks of a language in a section."""
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)


def commands(title: str) -> list[str]:
    """The commands of a section's shell blocks, without their comments."""
    lines = [line.split(" #")[0].strip() for block in blocks(title, "sh") for line in block.splitlines()]
    return [line for line in lines if line]


def file_of(code: str) -> str:
    """The path in the comment that an example begins with."""
    return re.match(r"# (\S+\.py)\n", code)[1]
