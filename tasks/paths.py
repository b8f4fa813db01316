"""Where every stage reads and writes, relative to the project's folder. dvc.yaml names the same places."""

from pathlib import Path

from vadcore.utils.folders import folder_of

DATA = Path("data")
MODELS = Path("models")
SCORES = Path("scores")
PICTURES = Path("pictures")
REPORTS = Path("reports")
KEPT = Path("benchmarks/results")  # results of earlier runs, which are part of the project
CHECKPOINTS = Path("checkpoints")
WEIGHTS = Path("weights")  # of FlowNet: what ships with the project, and a folder for each network trained here


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
    """Some of the fields as pictures, and pictures.json, which says what they show."""
    return PICTURES / dataset / "optical_flow"


def facts(dataset: str) -> Path:
    """What extraction found: clips, frames, hours, what was left out."""
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
