"""Model registry. Each model is one file; ``@register_model`` makes its name valid as ``model.<name>`` in params.yaml.

``list_models()`` lists the names, ``create_model(name, config)`` builds a model, ``save_model`` and ``load_model`` write
and read a trained model.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vadcore.data.windows import Batch
from vadcore.models.base import Model, ModelConfig, Phase, Prediction, Update
from vadcore.utils.errors import VadError, one_line
from vadcore.utils.files import complete, write_text
from vadcore.utils.folders import FUSION

__all__ = [
    "Batch",
    "Model",
    "ModelConfig",
    "Phase",
    "Prediction",
    "Update",
    "create_model",
    "list_models",
    "load_model",
    "model_class",
    "model_config",
    "register_model",
    "save_model",
    "system_of",
]

_REGISTRY: dict[str, tuple[type[Model], type[ModelConfig]]] = {}


def register_model(name: str, config: type[ModelConfig]):
    """Class decorator: register a model as ``name`` with the configuration class ``config``."""

    def register(model: type[Model]) -> type[Model]:
        if name in _REGISTRY:
            raise ValueError(f"two systems are called {name!r}")
        _REGISTRY[name] = (model, config)
        return model

    return register


def list_models() -> list[str]:
    """Names of all registered models, sorted."""
    return sorted(_REGISTRY)


def system_of(name: str) -> str:
    """Name of the registered model for ``name``, which is ``<system>`` or a variant, ``<system>-<variant>``."""
    return name.partition("-")[0]


def _known(name: str) -> tuple[type[Model], type[ModelConfig]]:
    system = system_of(name)
    if system not in _REGISTRY:
        raise VadError(f"model.{name}: no such system; there are: {', '.join([*list_models(), FUSION])}")
    return _REGISTRY[system]


def model_class(name: str) -> type[Model]:
    """The class of the system ``name``, or of the system that it is a variant of."""
    return _known(name)[0]


def model_config(name: str, section: dict[str, Any] | ModelConfig) -> ModelConfig:
    """Validate the section ``model.<name>``."""
    return _known(name)[1].model_validate(section)


def create_model(name: str, config: ModelConfig | dict | None = None) -> Model:
    """Build the model ``name`` (or a variant). Keys missing from ``config`` take their defaults, the published values."""
    model, _ = _known(name)
    return model(model_config(name, config or {}))


def save_model(model: Model, name: str, folder: Path) -> None:
    """Write ``weights.safetensors`` and ``config.yaml`` into ``folder``, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with complete(folder / "weights.safetensors") as temporary:
        save_file(tensors, temporary)
    text = yaml.safe_dump({"system": name, **model.config.model_dump(mode="json")}, sort_keys=False)
    write_text(folder / "config.yaml", text)


def load_model(folder: Path | str) -> Model:
    """Load the model that :func:`save_model` wrote to ``folder``, in evaluation mode on the CPU.

    Raises :class:`VadError` when a file is missing, unreadable or does not fit the model.
    """
    folder = Path(folder)
    file = folder / "weights.safetensors"
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        tensors = load_file(file)
    except FileNotFoundError as error:
        raise VadError(f"{error.filename or file}: no trained model here; run the train stage first") from error
    except SafetensorError as error:
        raise VadError(f"{file}: not a safetensors file ({error}); train again or fetch the file again") from error
    except yaml.YAMLError as error:
        raise VadError(f"{folder / 'config.yaml'}: not valid YAML; train again or fetch the folder again") from error
    try:
        name = values.pop("system")
        model = create_model(name, values)
    except (AttributeError, KeyError, ValidationError) as error:
        raise VadError(
            f"{folder / 'config.yaml'}: not the configuration of a system known here ({one_line(error)}); train again"
        ) from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = one_line(error)
        raise VadError(f"{file}: does not fit the model in {folder / 'config.yaml'} ({reason}); train again") from error
    return model.eval()


for _module in pkgutil.iter_modules(__path__):
    if _module.name != "base":
        importlib.import_module(f"{__name__}.{_module.name}")
