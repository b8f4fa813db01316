"""Paths that the stages read and write, relative to the project folder. dvc.yaml names the same paths."""

from pathlib import Path

from vadcore.utils.folders import folder_of

SETTINGS = Path("settings.yaml")
DATA = Path("data")
MODELS = Path("models")
SCORES = Path("scores")
PICTURES = Path("pictures")
REPORTS = Path("reports")
CHECKPOINTS = Path("checkpoints")
WEIGHTS = Path("weights")  # FlowNet weights: the shipped file, and a folder for each network trained here


def raw(dataset: str) -> Path:
    """The footage as delivered."""
    return DATA / "raw" / dataset


def frames(dataset: str) -> Path:
    return DATA / dataset / "frames.zarr"


def masks(dataset: str) -> Path:
    return DATA / dataset / "masks.zarr"


def flow(dataset: str) -> Path:
    return DATA / dataset / "flow.zarr"


def flow_pictures(dataset: str) -> Path:
    """Pictures of some flow fields, and pictures.json, which describes them."""
    return PICTURES / dataset / "optical_flow"


def facts(dataset: str) -> Path:
    """Facts found by extraction: clips, frames, hours, skipped clips."""
    return DATA / dataset / "facts.json"


def model(dataset: str, name: str) -> Path:
    return folder_of(MODELS, dataset, name)


def scores(dataset: str, name: str) -> Path:
    return folder_of(SCORES, dataset, name)


def flownet(name: str) -> Path:
    """A FlowNet trained here: weights.safetensors, history.csv, metrics.json, cost.json, samples/."""
    return WEIGHTS / name


def checkpoints(dataset: str, name: str) -> Path:
    return CHECKPOINTS / dataset / name
