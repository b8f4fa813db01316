"""Preprocessing recipe: how new footage must be prepared to match the training footage of a system. Detector folders.

A *detector folder* contains everything that scoring needs: ``weights.safetensors`` and ``config.yaml`` of the system,
``calibration.json``, ``detector.json`` (a :class:`PreprocessSpec`), and the weights of the optical flow network, if any.
The detector folder of a fusion has no weights of its own; it has ``members/<name>/`` with the weights and configuration
of each member.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, ValidationError

from vadcore.data.store import ClipStore
from vadcore.utils.errors import VadError
from vadcore.utils.files import sha256_files, write_text
from vadcore.utils.schema import Size

FILE = "detector.json"
SYSTEM = ("weights.safetensors", "config.yaml")
MEMBERS = "members"


def system_files(folder: Path) -> list[Path]:
    """Files in ``folder`` that make up a trained system, or a fusion with its members."""
    members = folder / MEMBERS
    if not members.is_dir():
        return [folder / name for name in SYSTEM]
    return [folder / "config.yaml", *(file for member in sorted(members.iterdir()) for file in system_files(member))]


class FlowRecipe(BaseModel):
    """How stored optical flow is computed: ``estimator`` with ``options`` on frames resized to ``size`` [height, width].

    The option ``weights`` is a path; inside a detector folder it is relative to that folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    estimator: str
    options: dict[str, Any]
    size: Size


class PreprocessSpec(BaseModel):
    """Preprocessing of footage before scoring, and smoothing of the scores.

    Attributes
    ----------
    dataset, name: data set that the system was trained on, and name of the system in params.yaml.
    fps: frames per second.
    size: height and width of the stored frames; None if clips had several sizes and the system uses its own size.
    color: color of the stored frames.
    flow: optical flow recipe; None if the system needs no optical flow.
    precision: numeric precision of training; None for a fusion, whose configuration has the precision of each member.
    smoothing: sigma of the temporal smoothing, in frames.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    name: str
    fps: PositiveFloat
    size: Size | None
    color: Literal["grey", "rgb"]
    flow: FlowRecipe | None
    precision: Literal["float32", "bfloat16"] | None
    smoothing: NonNegativeFloat


def describe(
    model_folder: Path,
    scores_folder: Path,
    frames: ClipStore,
    flow: ClipStore | None = None,
    flow_weights: str | None = None,
) -> PreprocessSpec:
    """Create the preprocessing recipe of a system that the pipeline stages have trained and scored.

    Parameters
    ----------
    model_folder, scores_folder: outputs of the train and the score stage.
    frames, flow: stores that the system was trained on; ``flow`` is None if the system needs no optical flow.
    flow_weights: path of the weights of the optical flow network. The store contains only their digest.

    Raises :class:`VadError` if the weights do not match the digest or if an output is missing.
    """
    trained, scored = (_read(folder / "metrics.json") for folder in (Path(model_folder), Path(scores_folder)))
    clips = frames.arrays("train")
    if not clips:
        raise VadError(f"{frames.url}: no training clips, so nothing says what footage the system knows; run extract")
    sizes: set[tuple[int, int]] = set()
    channels: set[int] = set()
    rates: Counter[float] = Counter()
    for array in clips.values():
        length, height, width, depth = array.shape
        sizes.add((height, width))
        channels.add(depth)
        known: Mapping[str, Any] = array.attrs
        rates[float(known["fps"])] += length
    return PreprocessSpec(
        dataset=trained["dataset"],
        name=trained["model"],
        fps=rates.most_common(1)[0][0],  # if rates differ between clips: the rate of the most frames
        size=sizes.pop() if len(sizes) == 1 else None,
        color="grey" if channels == {1} else "rgb",
        flow=_describe_flow(flow, flow_weights) if flow else None,
        precision=trained["precision"],
        smoothing=scored["smoothing_frames"],
    )


def _describe_flow(flow: ClipStore, weights: str | None) -> FlowRecipe:
    clips = flow.clips("train")
    if not clips:
        raise VadError(f"{flow.url}: no flow of training clips; run the optical_flow stage")
    known = flow.attributes(clips[0])
    options = dict(known["options"])
    if "weights" in options:
        if weights is None or not Path(weights).is_file() or sha256_files([Path(weights)]) != options["weights"]:
            raise VadError(
                f"{weights or 'optical_flow.weights'}: not the weights that {flow.url} was made with; name them under "
                "optical_flow.weights, or run the stages anew: dvc repro"
            )
        options["weights"] = str(weights)
    height, width = flow.array(clips[0]).shape[2:]
    return FlowRecipe(estimator=known["estimator"], options=options, size=(height, width))


def pack(recipe: PreprocessSpec, model_folder: Path, calibration: Path, folder: Path) -> None:
    """Create the detector folder ``folder``; an existing one is replaced. On failure no incomplete folder is left.

    calibration: path of the ``calibration.json`` of the score stage. Raises :class:`VadError` if a file is missing.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    beside.mkdir()
    try:
        sources = {file: file.relative_to(model_folder) for file in system_files(Path(model_folder))}
        for source, target in (sources | {Path(calibration): Path("calibration.json")}).items():
            if not source.is_file():
                raise VadError(f"{source}: not there; run the stages of {recipe.name} first: dvc repro")
            (beside / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, beside / target)
        if recipe.flow and "weights" in recipe.flow.options:
            weights = Path(recipe.flow.options["weights"])
            kept = f"flow{weights.suffix}"
            shutil.copy(weights, beside / kept)
            options = {**recipe.flow.options, "weights": kept}
            recipe = recipe.model_copy(update={"flow": recipe.flow.model_copy(update={"options": options})})
        write_text(beside / FILE, recipe.model_dump_json(indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read_recipe(folder: Path) -> PreprocessSpec:
    """Read the recipe of a detector folder; ``folder`` is prefixed to the path of its flow weights.

    Raises :class:`VadError` if the file is missing or invalid.
    """
    path = Path(folder) / FILE
    try:
        recipe = PreprocessSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise VadError(f"{path}: not there; a detector folder holds it: make one with tasks.detect --pack") from error
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"])) or "JSON"
        raise VadError(f"{path}: {key}: {fault['msg']}; make the folder anew with tasks.detect --pack") from error
    if recipe.flow and "weights" in recipe.flow.options:
        options = {**recipe.flow.options, "weights": str(Path(folder) / recipe.flow.options["weights"])}
        recipe = recipe.model_copy(update={"flow": recipe.flow.model_copy(update={"options": options})})
    return recipe


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise VadError(f"{path}: not there; run the train and the score stage first, or all: dvc repro") from error
