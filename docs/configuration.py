"""Write the tables of docs/configuration.md: every key of params.yaml, its default and its comment in the code.

python -m docs.configuration
"""

from __future__ import annotations

import inspect
import io
import tokenize
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from benchmarks.publish import rewrite
from vadcore import config
from vadcore.data.formats import SHIPPED, format_module
from vadcore.data.formats.base import config_of
from vadcore.models import list_models, model_config
from vadcore.models.fusion import FusionConfig

PAGE = Path("docs/configuration.md")
SECTIONS = ("machine", "extract", "train", "calibrate", "score", "report", "detect", "tracking")


def comments(model: type[BaseModel]) -> dict[str, str]:
    """The comment behind each field of ``model`` and of its base classes, or the comment lines above it."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not (issubclass(base, BaseModel) and base is not BaseModel and base.__module__.startswith("vadcore")):
            continue
        above: list[str] = []
        name = None
        for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(base)).readline):
            if token.type == tokenize.COMMENT:
                text = token.string.lstrip("# ")
                if token.line.strip().startswith("#"):
                    above.append(text)
                elif name:
                    found[name] = text
            elif token.type == tokenize.NAME and token.line.startswith("    ") and token.start[1] == 4:
                name = token.string
                if above:
                    found[name], above = " ".join(above), []
    return found


def table(model: type[BaseModel]) -> str:
    """Key, default and meaning of every field of ``model``."""
    said = comments(model)
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if default is PydanticUndefined:
            shown = "required"
        elif isinstance(default, BaseModel):
            shown = ", ".join(f"{key}: {_yaml(value)}" for key, value in default.model_dump().items())
        else:
            shown = f"`{_yaml(default)}`"
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        meaning = said.get(name) or field.description or " / ".join(map(str, choices[1:] and choices))
        lines.append(f"| `{name}` | {shown} | {meaning.replace('|', '/')} |")
    return "\n".join(lines)


def _yaml(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(part)}' for key, part in value.items())}}}"
    return str(value)


def sections() -> str:
    """All tables, in the order of params.yaml."""
    parts = []
    for name in SECTIONS:
        model = type(config.Params.model_fields[name].get_default(call_default_factory=True))
        parts.append(f"### {name}\n\n{table(model)}")
    for model in (config.Dis, config.Farneback, config.FlowNet, config.Raft):
        (name,) = get_args(model.model_fields["estimator"].annotation)
        parts.append(f"### optical_flow: {name}\n\n{table(model)}")
    for name in sorted(SHIPPED):
        format_module(name)
        parts.append(f"### dataset, format: {name}\n\n{table(config_of(name))}")
    for name in list_models():
        parts.append(f"### model: {name}\n\n{table(type(model_config(name, {})))}")
    parts.append(f"### fusion\n\n{table(FusionConfig)}")
    parts.append(f"### flownet\n\n{table(config.FlowTraining)}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    rewrite(PAGE, sections(), "sections")
