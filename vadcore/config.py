"""Read params.yaml, validate it and return frozen configuration objects.

Each error message is one line with the key, the value and the allowed values.
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
from vadcore.data.video import MAX_MISSING
from vadcore.flow.flownet import COARSEST, Enlarge
from vadcore.models import ModelConfig, list_models, model_config
from vadcore.models.fusion import FusionConfig
from vadcore.utils.errors import VadError
from vadcore.utils.files import text_encoding
from vadcore.utils.folders import FUSED, FUSION, is_fusion
from vadcore.utils.schema import Section, Size
from vadcore.utils.targets import target_of


class FlowTraining(Section):
    """FlowNet training. The defaults are the published values."""

    width: PositiveFloat = 1.0  # factor for the number of channels of every layer
    image_size: Size = (384, 448)  # [height, width] of the generated pairs, pixels
    batch_size: PositiveInt = 8
    iterations: PositiveInt = 600_000
    learning_rate: PositiveFloat = 1e-4
    motion: PositiveFloat = 3.0  # mean displacement of a shape relative to the background, pixels
    still: float = Field(default=0.25, ge=0, le=1)  # share of the pairs with a static background

    @field_validator("image_size")
    @classmethod
    def _size_fits(cls, size):
        if any(side % COARSEST for side in size):
            near = [max(COARSEST, round(side / COARSEST) * COARSEST) for side in size]
            raise ValueError(f"sides must be multiples of {COARSEST}, such as {near}")
        return size


RENAMED = {  # old key of params.yaml: new key
    "calibrate.false_alarms_per_hour": "calibrate.target_far_per_hour",
    "calibrate.merge_seconds": "calibrate.merge_gap_s",
    "calibrate.min_seconds": "calibrate.min_event_s",
    "train.held_out": "train.val_share",
    "train.held_out_windows": "train.val_windows",
    "score.moments": "score.snapshots",
}
REMOVED = {  # old key of params.yaml: what to do instead
    "flow_models": "move its systems to models",
    "fusions": "every section fusion.<name> runs; move model.fusion to fusion.fusion",
    "flownets": "every section flownet.<name> is trained; remove this line",
}


LONGEST_NAME = 100  # characters; names become parts of file names, which have 255 bytes at most
_NUMBER = re.compile(r"0o[0-7_]+|[0-9_]+([eE][-+]?[0-9]+)?")  # in YAML 1.2, which DVC reads
_NOT_TEXT = "{0}.{1}: YAML takes it for a number, a date or a word like true; choose another name, such as {0}-{1}"


class Machine(Section):
    """Hardware settings of this machine. They affect speed; another device changes results only by rounding."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")  # auto | cpu | cuda | cuda:N
    workers: NonNegativeInt = 0  # number of processes for per-clip work; 0: one per core
    scheduler: str | None = None  # address of a dask.distributed scheduler; null: processes on this machine
    cache: Literal["auto", "device", "ram", "stream"] = "auto"  # where training reads windows from
    processes: PositiveInt = 1  # number of processes for distributed training of one model, one per GPU


class Extract(Section):
    on_error: Literal["stop", "skip"] = "stop"  # skip: leave out unreadable clips and list them
    max_missing: float = Field(default=MAX_MISSING, ge=0, le=1)  # share of a video's frames that may be undecodable


class Flow(Section):
    """Settings common to all optical flow estimators."""

    size: Size | None = None  # [height, width] that frames are resized to, and of the stored flow; null: no resize


class Dis(Flow):
    """Dense Inverse Search (DIS) from OpenCV."""

    estimator: Literal["dis"] = "dis"
    preset: Literal["ultrafast", "fast", "medium"] = "medium"


class Farneback(Flow):
    """Farneback's polynomial expansion from OpenCV, with the usual argument values."""

    estimator: Literal["farneback"]
    pyr_scale: float = Field(default=0.5, gt=0, lt=1)  # scale of each pyramid level relative to the level below
    levels: PositiveInt = 3
    winsize: PositiveInt = 15  # size of the averaging window, pixels
    iterations: PositiveInt = 3
    poly_n: Literal[5, 7] = 5  # width of the neighbourhood for the polynomial fit, pixels
    poly_sigma: PositiveFloat = 1.2  # sigma of the Gaussian that weights this neighbourhood


class FlowNet(Flow):
    """FlowNet2-SD."""

    estimator: Literal["flownet"]
    weights: str  # *.safetensors trained with this project, or the published checkpoint
    enlarge: Enlarge = (1, 1)  # scale factors [height, width] of the input; larger: slower, finds smaller objects


class Raft(Flow):
    """RAFT from torchvision, which must be installed."""

    estimator: Literal["raft"]
    weights: str  # file with the state dict of torchvision's weights
    network: Literal["small", "large"] = "small"


def _estimator(section) -> str | None:
    """Return the estimator name of an ``optical_flow`` section, before or after validation."""
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
    val_share: float = Field(default=0.15, gt=0, lt=1)  # share of normal clips for validation and calibration
    check_every: PositiveInt = 500  # iterations between validations (validation loss, pictures)
    val_windows: PositiveInt = 64  # number of windows for the validation loss
    log_every: PositiveInt = 10  # iterations between logged losses
    save_seconds: PositiveFloat = 30.0  # seconds between checkpoints


class AlarmRule(Section):
    target_far_per_hour: PositiveFloat = 12.0  # target false-alarm rate of the thresholds, per hour
    merge_gap_s: NonNegativeFloat = 1.0  # alarms at most this far apart are merged into one event, seconds
    min_event_s: NonNegativeFloat = 0.2  # events shorter than this after merging are dropped, seconds


class Calibrate(AlarmRule):
    # data set: the keys above that it has another value for, such as {yard: {target_far_per_hour: 6}}
    datasets: dict[str, AlarmRule] = Field(default={})


class Rollouts(Section):
    """Multi-step predictions of models that use their own predictions as input (rollouts)."""

    prime: int = Field(default=30, ge=2)  # number of input frames
    steps: PositiveInt = 30  # number of predicted frames
    sequences: PositiveInt = 64  # number of measured sequences, spread evenly over the test clips
    shown: PositiveInt = 3  # number of sequences shown as strips and as an animation


class Score(Section):
    smoothing: NonNegativeFloat = 0.0  # sigma of the Gaussian that smooths every score over time, frames
    worst: PositiveInt = 8  # number of highest-scoring frames shown with their error maps
    snapshots: int = Field(default=1000, ge=0, le=5000)  # number of test frames stored for the report; 0: none
    rollouts: Rollouts = Rollouts()


class Report(Section):
    title: str = "Video anomaly report"
    # training iterations whose pictures are shown side by side; null: up to three that all models have
    check_points: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)


class Detect(Section):
    """Detection on new footage."""

    film: bool = True  # write an annotated video
    settle_seconds: PositiveFloat = 10.0  # a file in the inbox is complete when unchanged for this long, seconds
    # called once per event: a URL that accepts a POST of JSON, or a command that reads JSON from standard input; a
    # string is split into words like a shell command, a list is used as it is
    alert: str | tuple[str, ...] | None = None
    alert_hours: PositiveFloat = 1.0  # how long a failed alert is retried, hours

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
    """All sections of params.yaml."""

    profile: str = "custom"
    seed: NonNegativeInt = 1
    datasets: tuple[str, ...] = Field(min_length=1)
    models: tuple[str, ...] = ()
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
    model: dict[str, SerializeAsAny[ModelConfig]] = Field(default={})
    fusion: dict[str, FusionConfig] = Field(default={})
    flownet: dict[str, FlowTraining] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _typed_sections(cls, values):
        """Convert every ``dataset.<name>`` section to its format's class and every ``model.<name>`` section to the class
        of its model. A listed system without a section has the defaults."""
        if not isinstance(values, dict):
            return values
        for key, remedy in REMOVED.items():
            if key in values:
                raise ValueError(f"{key}: removed; {remedy}")
        models = values.get("model")
        if models is None or isinstance(models, dict):
            listed = [name for name in values.get("models") or () if name in list_models()]
            values = {**values, "model": {**dict.fromkeys(listed), **(models or {})}}
        typed: dict[str, dict] = {}
        for kind, of_section in (("dataset", lambda _, section: dataset_config(section)), ("model", model_config)):
            if not isinstance(values.get(kind), dict):
                continue
            typed[kind] = {}
            for name, section in values[kind].items():
                if not isinstance(name, str):
                    raise ValueError(_NOT_TEXT.format(kind, name))
                if kind == "model" and is_fusion(name):
                    raise ValueError(f"model.{name}: a fusion has a section of its own; move it to fusion.{name}")
                try:
                    typed[kind][name] = of_section(name, section or {})
                except ValidationError as error:
                    raise VadError(_first_fault(error, f"{kind}.{name}")) from error
                except VadError as error:
                    raise VadError(f"{kind}.{name}.{error}" if kind == "dataset" else str(error)) from error
        return {**values, **typed}

    @model_validator(mode="after")
    def _names_are_known(self):
        for key, kind in (("datasets", "dataset"), ("models", "model")):
            wanted, sections = getattr(self, key), getattr(self, kind)
            if len(set(wanted)) < len(wanted):
                raise ValueError(f"{key}: {', '.join(wanted)}: listed twice; remove one")
            for name in wanted:
                if is_fusion(name):
                    raise ValueError(f"{key}: {name!r} is a fusion; remove it here, its section fusion.{name} suffices")
                if name not in sections:
                    known = ", ".join(sections) or "none"
                    raise ValueError(f"{key}: {name!r} has no section {kind}.{name}; there are: {known}")
        for kind in ("dataset", "model", "fusion", "flownet"):
            for name in getattr(self, kind):
                if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name in ("raw", FUSED):
                    raise ValueError(
                        f"{kind}.{name}: not a name for a folder; use letters, digits, - and _ "
                        f"(DVC takes a dot for a level), and not 'raw' or {FUSED!r}"
                    )
                if len(name) > LONGEST_NAME:
                    raise ValueError(f"{kind}.{name[:20]}...: {len(name)} characters; use at most {LONGEST_NAME}")
                if not _is_text(name):
                    raise ValueError(_NOT_TEXT.format(kind, name))
        for name in self.calibrate.datasets:
            if name not in self.dataset:
                known = ", ".join(self.dataset) or "none"
                raise ValueError(f"calibrate.datasets: {name!r} has no section dataset.{name}; there are: {known}")
        for name, fusion in self.fusion.items():
            if not is_fusion(name):
                raise ValueError(f"fusion.{name}: call it {FUSION!r} or '{FUSION}-<variant>'")
            for member in fusion.of:
                if member not in self.models:
                    raise ValueError(f"fusion.{name}.of: {member!r} does not run; list it under models")
        if not self.all_models:
            raise ValueError("models: nothing to run; name at least one")
        return self

    @property
    def all_models(self) -> tuple[str, ...]:
        """All listed models, then the fusions."""
        return (*self.models, *self.fusion)

    def of(self, dataset: str) -> Params:
        """Return a copy whose section ``calibrate`` is that of one data set."""
        own = self.calibrate.datasets.get(dataset, AlarmRule()).model_dump(exclude_unset=True)
        return self.model_copy(update={"calibrate": self.calibrate.model_copy(update={**own, "datasets": {}})})

    @property
    def needs_flow(self) -> bool:
        """Whether any listed model reads the stored optical flow."""
        return any(map(self.reads_flow, self.models))

    def reads_flow(self, name: str) -> bool:
        """Whether a listed model reads the stored optical flow. For a fusion: whether any member does."""
        if name in self.fusion:
            return any(map(self.reads_flow, self.fusion[name].of))
        return self.model[name].needs_flow


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and validate a params file.

    Raises :class:`VadError` for the first error: unreadable file, unknown key, wrong type or invalid combination.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        encoding = text_encoding(data)
        if not encoding.startswith("utf-8"):  # DVC reads the file, too, and only in UTF-8
            try:
                data.decode(encoding)
            except UnicodeDecodeError as error:
                found = f"byte 0x{data[error.start]:02x} at {error.start}"
                raise VadError(f"{path}: not in UTF-8 ({found}); save it in UTF-8 with an editor") from error
            name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")  # as iconv spells it
            raise VadError(
                f"{path}: not in UTF-8 (it looks like {name}); save it in UTF-8, or: "
                f"iconv -f {name} -t UTF-8 {path} > new.yaml && mv new.yaml {path}"
            )
        values = yaml.safe_load(data.decode(encoding, errors="replace"))
    except FileNotFoundError as error:
        raise VadError(f"{path}: not found; run from the project's folder, or copy a file of profiles/ here") from error
    except yaml.YAMLError as error:
        raise VadError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise VadError(f"{path}: has no sections; copy a file of profiles/ over it")
    try:
        return Params(**values)
    except ValidationError as error:
        raise VadError(f"{path}: {_first_fault(error)}") from error
    except VadError as error:
        raise VadError(f"{path}: {error}") from error


def _is_text(name: str) -> bool:
    """Whether YAML reads a name without quotes as text, both in version 1.1 (PyYAML) and in 1.2 (DVC)."""
    try:
        return yaml.safe_load(name) == name and not _NUMBER.fullmatch(name)
    except ValueError:  # a date that does not exist, such as 2024-13-01
        return False


def _first_fault(error: ValidationError, prefix: str = "") -> str:
    """Format the first error of ``error`` as ``key: value 'x': what is allowed``."""
    fault = error.errors()[0]
    parts = [prefix] if prefix else []
    # Pydantic adds the tag of a tagged union ('dis', 'vcae', ...) to the path; the tag is not a key of the file.
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
