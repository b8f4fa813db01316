"""params.yaml: read, validated whole, and turned into frozen objects.

Every fault is one line that names the key, the value and what is allowed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from vadcore.data.formats import dataset_config
from vadcore.data.formats.base import DatasetConfig
from vadcore.flow.flownet import COARSEST, Enlarge
from vadcore.models import ModelConfig, model_config
from vadcore.models.fusion import FusionConfig
from vadcore.utils.errors import VadError
from vadcore.utils.folders import FUSED, is_fusion
from vadcore.utils.schema import Section, Size
from vadcore.utils.targets import target_of


class FlowTraining(Section):
    """How FlowNet is trained; defaults are the published figures."""

    width: PositiveFloat = 1.0  # multiplies the number of channels of every layer
    image_size: Size = (384, 448)  # [height, width] of the generated pairs
    batch_size: PositiveInt = 8
    iterations: PositiveInt = 600_000
    learning_rate: PositiveFloat = 1e-4
    motion: PositiveFloat = 3.0  # mean displacement of a shape against the background, pixels
    still: float = Field(default=0.25, ge=0, le=1)  # share of the pairs whose background stands still

    @field_validator("image_size")
    @classmethod
    def _size_fits(cls, size):
        if any(side % COARSEST for side in size):
            near = [max(COARSEST, round(side / COARSEST) * COARSEST) for side in size]
            raise ValueError(f"sides must be multiples of {COARSEST}, such as {near}")
        return size


RENAMED = {  # former keys of params.yaml, and what they are called now
    "calibrate.false_alarms_per_hour": "calibrate.target_far_per_hour",
    "calibrate.merge_seconds": "calibrate.merge_gap_s",
    "calibrate.min_seconds": "calibrate.min_event_s",
    "train.held_out": "train.val_share",
    "train.held_out_windows": "train.val_windows",
    "score.moments": "score.snapshots",
}


class Machine(Section):
    """What this machine is asked to do; changes how fast results come, and them only in rounding (another device)."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")  # auto | cpu | cuda | cuda:N
    workers: NonNegativeInt = 0  # processes for per-clip work; 0: one a core
    scheduler: str | None = None  # address of a dask.distributed scheduler; null: processes on this machine
    cache: Literal["auto", "device", "ram", "stream"] = "auto"  # where training reads windows from
    processes: PositiveInt = 1  # that train a system together: one a GPU


class Extract(Section):
    on_error: Literal["stop", "skip"] = "stop"  # skip: leave unreadable clips out, and list them


class Flow(Section):
    """What every estimator has."""

    size: Size | None = None  # that frames are brought to before, and their flow is stored at; null: their own


class Dis(Flow):
    """OpenCV's Dense Inverse Search."""

    estimator: Literal["dis"] = "dis"
    preset: Literal["ultrafast", "fast", "medium"] = "medium"


class Farneback(Flow):
    """OpenCV's polynomial expansion, with the usual values of its arguments."""

    estimator: Literal["farneback"]
    pyr_scale: float = Field(default=0.5, gt=0, lt=1)  # size of a pyramid level in that of the one below
    levels: PositiveInt = 3
    winsize: PositiveInt = 15  # pixels that the motion is averaged over
    iterations: PositiveInt = 3
    poly_n: Literal[5, 7] = 5  # pixels across that a polynomial is fitted to
    poly_sigma: PositiveFloat = 1.2  # of the Gaussian that weights them


class FlowNet(Flow):
    """FlowNet2-SD."""

    estimator: Literal["flownet"]
    weights: str  # *.safetensors as trained here, or the published checkpoint
    enlarge: Enlarge = (1, 1)  # times; larger pictures show it smaller movers, and take longer


class Raft(Flow):
    """torchvision's RAFT; needs that package."""

    estimator: Literal["raft"]
    weights: str  # the state dict of torchvision's weights
    network: Literal["small", "large"] = "small"


def _estimator(section) -> str | None:
    """Which estimator an ``optical_flow`` section, read or validated, is for."""
    return section.get("estimator", "dis") if isinstance(section, dict) else getattr(section, "estimator", None)


OpticalFlow = Annotated[
    Annotated[Dis, Tag("dis")]
    | Annotated[Farneback, Tag("farneback")]
    | Annotated[FlowNet, Tag("flownet")]
    | Annotated[Raft, Tag("raft")],
    Discriminator(
        _estimator,
        custom_error_type="estimator",
        custom_error_message="Its estimator should be dis, farneback, flownet or raft",
    ),
]


class Train(Section):
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    val_share: float = Field(default=0.15, gt=0, lt=1)  # share of the normal clips kept for selection and calibration
    check_every: PositiveInt = 500  # iterations between check points: held-out loss, pictures
    val_windows: PositiveInt = 64  # windows that the held-out loss is measured on
    log_every: PositiveInt = 10  # iterations between logged losses
    save_seconds: PositiveFloat = 30.0  # time between checkpoints


class Calibrate(Section):
    target_far_per_hour: PositiveFloat = 12.0  # false alarms an hour that thresholds are set for
    merge_gap_s: NonNegativeFloat = 1.0  # alarms closer than this are one event
    min_event_s: NonNegativeFloat = 0.2  # shorter alarms are none


class Rollouts(Section):
    """Predictions of many frames ahead, of systems that go on from their own predictions."""

    prime: int = Field(default=30, ge=2)  # frames given
    steps: PositiveInt = 30  # frames ahead
    sequences: PositiveInt = 64  # measured, evenly spread over the test clips
    shown: PositiveInt = 3  # of them, as strips and as an animation


class Score(Section):
    smoothing: NonNegativeFloat = 0.0  # sigma of the Gaussian over time, in frames, on every system's score
    worst: PositiveInt = 8  # frames shown with their error maps
    snapshots: int = Field(default=1000, ge=0, le=5000)  # frames of the test footage that the report can show; 0: none
    rollouts: Rollouts = Rollouts()


class Report(Section):
    title: str = "Video anomaly report"
    # iterations whose pictures are put side by side; null: up to three that all systems have
    check_points: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)


class Detect(Section):
    """Scoring of new footage."""

    film: bool = True  # the annotated video
    settle_seconds: PositiveFloat = 10.0  # a file of the inbox that has not changed for so long is whole
    # called once an event: a URL that takes a POST of JSON, or a command that reads JSON from its standard input; a
    # string is split into words as a shell would, a list is taken as it is
    alert: str | tuple[str, ...] | None = None
    alert_hours: PositiveFloat = 1.0  # how long a failed call is repeated

    @field_validator("alert")
    @classmethod
    def _is_url_or_command(cls, alert: str | tuple[str, ...] | None):
        if alert is not None:
            try:
                target_of(alert)
            except VadError as error:
                raise ValueError(str(error).removeprefix("alert: ")) from error
        return alert


class Tracking(Section):
    experiment: str = "vad"


class Params(Section):
    """The whole of params.yaml."""

    profile: str = "custom"
    seed: NonNegativeInt = 1
    datasets: tuple[str, ...] = Field(min_length=1)
    models: tuple[str, ...] = ()
    fusions: tuple[str, ...] = ()
    flownets: tuple[str, ...] = ()
    machine: Machine = Machine()
    extract: Extract = Extract()
    optical_flow: OpticalFlow = Dis()
    train: Train = Train()
    calibrate: Calibrate = Calibrate()
    score: Score = Score()
    report: Report = Report()
    detect: Detect = Detect()
    tracking: Tracking = Tracking()
    dataset: dict[str, SerializeAsAny[DatasetConfig]]
    model: dict[str, SerializeAsAny[ModelConfig | FusionConfig]]
    flownet: dict[str, FlowTraining] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _typed_sections(cls, values):
        """Give every ``dataset.<name>`` section the class that its format registered, every ``model.<name>`` that of its
        system, or of fusions."""
        if not isinstance(values, dict):
            return values
        typed: dict[str, dict] = {}
        for kind, of_section in (("dataset", lambda _, section: dataset_config(section)), ("model", _model_section)):
            if not isinstance(values.get(kind), dict):
                continue
            typed[kind] = {}
            for name, section in values[kind].items():
                try:
                    typed[kind][name] = of_section(name, section or {})
                except ValidationError as error:
                    raise VadError(_first_fault(error, f"{kind}.{name}")) from error
                except VadError as error:
                    raise VadError(f"{kind}.{name}.{error}" if kind == "dataset" else str(error)) from error
        if "flow_models" in values:
            raise ValueError("flow_models: list these systems under models, too; there is one list now")
        return {**values, **typed}

    @model_validator(mode="after")
    def _names_are_known(self):
        for key, kind in (
            ("datasets", "dataset"),
            ("models", "model"),
            ("fusions", "model"),
            ("flownets", "flownet"),
        ):
            wanted, sections = getattr(self, key), getattr(self, kind)
            if len(set(wanted)) < len(wanted):
                raise ValueError(f"{key}: {', '.join(wanted)}: a name stands there twice; remove one")
            for name in wanted:
                if name not in sections:
                    known = ", ".join(sections) or "none"
                    raise ValueError(f"{key}: {name!r} has no section {kind}.{name}; there are: {known}")
        for kind in ("dataset", "model", "flownet"):
            for name in getattr(self, kind):
                if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or name in ("raw", FUSED):
                    raise ValueError(
                        f"{kind}.{name}: not a name for a folder; use letters, digits, - _ . and not 'raw' or {FUSED!r}"
                    )
        for key in ("models", "fusions"):
            for name in getattr(self, key):
                if is_fusion(name) != (key == "fusions"):
                    right = "fusions" if is_fusion(name) else "models"
                    raise ValueError(
                        f"{key}: {name!r} is {'a' if is_fusion(name) else 'no'} fusion; list it under {right}"
                    )
        for name in self.fusions:
            for member in self.model[name].of:
                if member not in self.models:
                    raise ValueError(f"model.{name}.of: {member!r} does not run; list it under models")
        if not self.all_models:
            raise ValueError("models: nothing to run; name at least one")
        return self

    @property
    def all_models(self) -> tuple[str, ...]:
        """Every listed system, fusions included."""
        return (*self.models, *self.fusions)

    @property
    def needs_flow(self) -> bool:
        """Whether any listed system reads the stored optical flow."""
        return any(map(self.reads_flow, self.models))

    def reads_flow(self, name: str) -> bool:
        """Whether a listed system reads the stored optical flow; of a fusion, whether a member does."""
        return any(self.model[one].needs_flow for one in (self.model[name].of if is_fusion(name) else (name,)))


def _model_section(name: str, section: dict) -> ModelConfig | FusionConfig:
    return FusionConfig(**section) if is_fusion(name) else model_config(name, section)


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and validate a params file.

    Raises :class:`VadError` with the first fault: unreadable file, unknown key, wrong type, impossible combination.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise VadError(f"{path}: not found; run from the project's folder, or copy a file of profiles/ here") from error
    except yaml.YAMLError as error:
        raise VadError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise VadError(f"{path}: holds no sections; copy a file of profiles/ over it")
    try:
        return Params(**values)
    except ValidationError as error:
        raise VadError(f"{path}: {_first_fault(error)}") from error
    except VadError as error:
        raise VadError(f"{path}: {error}") from error


def _first_fault(error: ValidationError, prefix: str = "") -> str:
    """The first fault of ``error`` as ``key: value 'x': what is allowed``."""
    fault = error.errors()[0]
    parts = [prefix] if prefix else []
    # a tagged union puts its tag ('dis', 'vcae', ...) into the path: that is not a key of the file
    tag = 1 if fault["loc"] and fault["loc"][0] in ("optical_flow", "front_end") else None
    parts += [str(part) for n, part in enumerate(fault["loc"]) if n != tag]
    key = ".".join(parts)
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden" and key in RENAMED:
        return f"{key}: is called {RENAMED[key]} now; rename it"
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key; correct its spelling or remove it"
    if fault["type"] == "missing":
        return f"{key}: missing; add it"
    if fault["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: value {fault['input']!r}: {message[0].lower()}{message[1:]}"
