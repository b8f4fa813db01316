"""Trainer for all models: training phases, validation on held-out normal footage, checkpoints, exact resume.

Distributed training (``torchrun``, ``accelerate launch``) averages the gradients in :class:`_Updates`. Each process takes
its share of the same global batch, so the number of processes does not change the result. Exceptions are models with batch
normalisation, randomly drawn states or means over a varying number of items: each process computes these for its share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor
from tqdm import tqdm

from vadcore.data.windows import Batch, Sampler, Windows, training_windows
from vadcore.evaluation.image_quality import PictureQuality
from vadcore.models.base import Learner, Phase, WindowSource
from vadcore.training.checkpoint import CheckpointFolder, random_state, set_random_state
from vadcore.utils.device import autocast, peak_memory_mb
from vadcore.utils.errors import VadError
from vadcore.utils.render import animation, strip, write_animation, write_png
from vadcore.utils.spaced import spaced
from vadcore.utils.turns import take_turns

PICTURED = 3  # validation windows in the sample pictures


@dataclass(frozen=True)
class TrainSettings:
    """Training settings, as in the ``train`` section of params.yaml.

    check_every, log_every: iterations between validations, and between logs. val_windows: number of validation windows, at
    most. save_seconds: longest time between checkpoints, in seconds.
    """

    seed: int = 1
    dtype: torch.dtype = torch.float32
    check_every: int = 500
    val_windows: int = 64
    log_every: int = 10
    save_seconds: float = 30.0


@dataclass
class Callback:
    """Callbacks that report the progress of training. All are optional.

    metrics: called with phase name, iteration and values at each log and each validation. picture: called with the path of
    each sample picture. say: called with messages for the user. progress: False updates the progress bar less often.
    """

    metrics: Callable[[str, int, dict[str, float]], None] = lambda phase, iteration, values: None
    picture: Callable[[Path], None] = lambda path: None
    say: Callable[[str], None] = print
    progress: bool = True


@dataclass
class Trained:
    """Result of training.

    history: one row per logged iteration: phase, iteration, losses; at validations also val, psnr, ssim, sharpness.
    quality: psnr, ssim and sharpness for the selected weights; empty for a model that shows no pictures.
    seconds: total training time including validation and saving, summed over all resumed runs.
    step_seconds: the part of it spent on optimizer steps and loading their data, for ``windows`` training windows.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_iteration: int | None = None
    val_loss: float | None = None
    quality: dict[str, float] = field(default_factory=dict)
    iterations: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    windows: int = 0
    peak_memory_mb: float = 0.0  # maximum over the processes

    def after(self, first: Trained) -> Trained:
        """Merge with the result of a submodel trained first. ``windows`` and ``step_seconds`` remain those of this one."""
        return replace(
            self,
            history=[*first.history, *self.history],
            iterations=first.iterations + self.iterations,
            seconds=first.seconds + self.seconds,
            peak_memory_mb=max(first.peak_memory_mb, self.peak_memory_mb),
        )


class Footage(WindowSource[Batch], Protocol):
    """Footage to train on or to validate with, such as :class:`vadcore.data.loader.ClipLoader`."""

    def moving(self) -> list[np.ndarray] | None:
        """Frames in which something moves, for each segment, bool ``[T]``; None: not known."""
        ...


class _Updates:
    """Optimizer step for :attr:`Phase.step`: zero gradients, backward, average over processes, clip, step, scheduler."""

    def __init__(self, phase: Phase, processes: int):
        self.phase, self.processes = phase, processes

    def __call__(self, name: str, loss: Tensor) -> None:
        optimizer = self.phase.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(loss.device.type, enabled=False):
            loss.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.processes > 1:
            flat = reduce(torch.cat([p.grad.flatten() for p in parameters]), "mean")
            for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                parameter.grad.copy_(part.view_as(parameter))
        if name in self.phase.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, self.phase.clip_norm[name])
        optimizer.step()
        torch.clear_autocast_cache()  # later forward passes in this step must use the updated weights
        if name in self.phase.schedulers:
            self.phase.schedulers[name].step()


def train(
    model: Learner,
    footage: Footage,
    val: Footage,
    settings: TrainSettings,
    checkpoint: CheckpointFolder,
    callback: Callback | None = None,
    first: CheckpointFolder | None = None,
) -> Trained:
    """Train ``model`` in place and load the weights with the lowest validation loss. Resumes from a checkpoint.

    Parameters
    ----------
    footage, val: normal footage for training and for validation.
    checkpoint: folder of the training state. Training resumes if it contains one.
    callback: callbacks for metrics, pictures and messages.
    first: checkpoint folder of the submodel ``model.trained_first``. Models with the same submodel can share it, so that the
        submodel is trained once. None: a folder below that of ``checkpoint``.

    Raises :class:`VadError` when a loss is not finite, when ``val`` has no clip as long as a window, or when a batch size is
    not divisible by the number of processes.
    """
    callback = callback or Callback()
    before = Trained()
    if (part := model.trained_first) is not None:
        first = first or CheckpointFolder(checkpoint.folder, "first")
        before = train(part, footage, val, settings, first, callback)
    process = PartialState(cpu=footage.device.type == "cpu")
    torch.manual_seed(settings.seed)
    model.to(footage.device).train()
    phases = model.phases()
    for phase in phases:
        if phase.optimizers:  # fail now, not at the first validation, if val has no window
            spread(val.lengths, phase.windows, 1)
    run = _Run(model, phases, footage, val, settings, checkpoint, callback, process)
    run.restore()
    for number in range(run.phase_number, len(phases)):
        run.phase(number)
    model.eval()
    return run.result.after(before)


class _Run:
    """State of one training (saved in checkpoints) and the training loop."""

    def __init__(
        self,
        model: Learner,
        phases: list[Phase[Any]],
        footage: Footage,
        val: Footage,
        settings: TrainSettings,
        checkpoint: CheckpointFolder,
        callback: Callback,
        process: PartialState,
    ):
        self.model, self.phases, self.footage, self.val = model, phases, footage, val
        self.settings, self.checkpoint, self.callback, self.process = settings, checkpoint, callback, process
        self.result = Trained()
        self.selecting: WindowSource[Any] = val  # source of the windows for the validation loss
        self.phase_number = self.iteration = 0  # next to run
        self.best: dict[str, Tensor] | None = None
        self.pending: dict[str, Tensor] = {}  # sums of logged scalars since the last log
        self.pending_count = 0
        self.saved_at = self.counted_to = time.monotonic()

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Load the last checkpoint, if there is one."""
        state = self.checkpoint.load()
        if state is None:
            return
        self.phase_number, self.iteration = state["phase"], state["iteration"]
        if self.iteration:  # in the middle of a phase: freeze its layers again
            self.phases[self.phase_number].begin()
        self.model.load_state_dict(state["model"])
        if self.phase_number < len(self.phases):
            phase = self.phases[self.phase_number]
            for name, saved in state["optimizers"].items():
                phase.optimizers[name].load_state_dict(saved)
            for name, saved in state["schedulers"].items():
                phase.schedulers[name].load_state_dict(saved)
        self.best, self.pending_count = state["best"], state["pending_count"]
        self.pending = {key: value.to(self.footage.device) for key, value in state["pending"].items()}
        self.result = Trained(**state["result"])
        if self.phase_number == len(self.phases):
            self.callback.say(f"already trained with these settings; to train again, delete {self.checkpoint.folder}")
            self.replay_metrics()
            return
        set_random_state(state["random"])
        self.callback.say(
            f"resuming from {self.checkpoint.file} at iteration {self.iteration} of phase {self.phase_number + 1}"
        )

    def replay_metrics(self) -> None:
        """Report the metrics and pictures of a finished training again, for a new tracking record."""
        for row in self.result.history:
            values = {key: value for key, value in row.items() if key not in ("phase", "iteration")}
            self.callback.metrics(row["phase"], row["iteration"], values)
        for path in sorted((self.checkpoint.folder / "samples").glob("*.*")):
            self.callback.picture(path)

    def save(self) -> None:
        """Write a checkpoint."""
        self.check_finite()
        self.count_time(stepping=self.iteration > 0)  # 0: a phase has just ended
        phase = self.phases[self.phase_number] if self.phase_number < len(self.phases) else None
        self.result.peak_memory_mb = max(self.result.peak_memory_mb, peak_memory_mb(self.footage.device))
        if self.process.is_main_process:
            self.checkpoint.save(
                {
                    "model": self.model.state_dict(),
                    "phase": self.phase_number,
                    "iteration": self.iteration,
                    "optimizers": {n: o.state_dict() for n, o in phase.optimizers.items()} if phase else {},
                    "schedulers": {n: s.state_dict() for n, s in phase.schedulers.items()} if phase else {},
                    "best": self.best,
                    "pending": self.pending,
                    "pending_count": self.pending_count,
                    "result": vars(self.result),
                    "random": random_state(),
                }
            )
        self.count_time(stepping=False)
        self.saved_at = self.counted_to

    def count_time(self, stepping: bool) -> None:
        """Add the time since the last call to ``seconds`` and, if ``stepping``, to ``step_seconds``.

        Call it after a synchronisation with the device, so that queued work is included.
        """
        passed = time.monotonic() - self.counted_to
        self.counted_to += passed
        self.result.seconds += passed
        if stepping and self.phases[self.phase_number].optimizers:
            self.result.step_seconds += passed

    # --- training loop -----------------------------------------------------------------------------------------------

    def phase(self, number: int) -> None:
        """Run phase ``number`` from ``self.iteration`` to its end."""
        settings, phase = self.settings, self.phases[number]
        share = self.process.num_processes if phase.optimizers else 1  # statistics: every process uses the whole batch
        if phase.batch_size % share:
            raise VadError(f"batch_size {phase.batch_size}: not divisible by the {share} processes; change either")
        seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
        if self.iteration == 0:
            phase.begin()
            self.best = None
        source: WindowSource[Any] = self.footage
        self.selecting = self.val
        if phase.source:
            source = phase.source(self.footage, settings.dtype)
            self.selecting = phase.source(self.val, settings.dtype) if phase.val else self.val
        moving = self.footage.moving() if phase.optimizers and not phase.source else None
        sampler = Sampler(source.lengths, phase.windows, phase.batch_size, phase.sampling, seed, moving)
        if sampler.active_share < 0.5:
            self.callback.say(
                f"{phase.name}: something moves in {sampler.active_share:.1%} of the training windows"
                + ("; half of each batch is drawn from those" if sampler.active_share else "")
            )
        update = _Updates(phase, share)
        first = self.process.process_index if share > 1 else 0
        plan = (sampler.batch(n)[first::share] for n in range(self.iteration, phase.iterations))
        bar = tqdm(
            total=phase.iterations,
            initial=self.iteration,
            desc=phase.name,
            unit="it",
            mininterval=1 if self.callback.progress else 10,
            disable=not self.process.is_main_process,
        )
        with bar:
            for batch in take_turns(source.batches(plan, phase.windows.length), self.footage.device.type):
                with autocast(self.footage.device, settings.dtype):
                    losses = phase.step(batch, update)
                for key, value in losses.items():
                    self.pending[key] = self.pending[key] + value.detach() if key in self.pending else value.detach()
                self.pending_count += 1
                self.iteration += 1
                if phase.optimizers:
                    self.result.iterations += 1
                    self.result.windows += phase.batch_size
                at_check_point = self.iteration % settings.check_every == 0 or self.iteration == phase.iterations
                if at_check_point or self.iteration % settings.log_every == 0:
                    self.log(phase, bar)
                if at_check_point:
                    self.count_time(stepping=True)
                    self.check_point(phase)
                    self.count_time(stepping=False)
                    self.save()
                elif time.monotonic() - self.saved_at > settings.save_seconds:
                    self.save()
                bar.update()
        if self.best is not None:
            self.model.load_state_dict(self.best)
        self.phase_number, self.iteration, self.best = number + 1, 0, None
        self.save()

    def log(self, phase: Phase, bar: tqdm) -> None:
        """Log the mean of each loss since the last log."""
        means = {key: float(value) / self.pending_count for key, value in self.pending.items()}
        self.check_finite()
        self.pending, self.pending_count = {}, 0
        if phase.optimizers:
            self.result.history.append({"phase": phase.name, "iteration": self.iteration, **means})
        self.callback.metrics(phase.name, self.iteration, means)
        bar.set_postfix({key: f"{value:.4g}" for key, value in means.items()}, refresh=False)

    def check_finite(self) -> None:
        for key, value in self.pending.items():
            if not torch.isfinite(value):
                raise VadError(
                    f"loss {key} is {float(value)} at iteration {self.iteration} of phase "
                    f"{self.phases[self.phase_number].name}; lower model.*.learning_rate or set train.precision to float32"
                )

    def check_point(self, phase: Phase) -> None:
        """Compute validation loss and image quality, keep the best weights. Does not change the random state."""
        if not phase.optimizers:
            return
        before = random_state()
        self.model.eval()
        row: dict[str, float] = {}
        loss: float | None = None  # None: no validation, the last weights are kept
        with torch.no_grad():
            if phase.val is not None:
                row["val"] = loss = self.val_loss(phase, phase.val)
                if not math.isfinite(loss):
                    raise VadError(
                        f"validation loss is {loss} at iteration {self.iteration} of phase {phase.name}; "
                        "lower model.*.learning_rate or set train.precision to float32"
                    )
            quality = self.look(phase) if self.process.is_main_process else {}
        self.model.train()
        set_random_state(before)
        row |= quality
        if row:
            self.result.history[-1].update(row)
            self.callback.metrics(phase.name, self.iteration, row)
        if loss is None:
            self.result.quality = quality
        elif self.best is None or self.result.val_loss is None or loss < self.result.val_loss:
            self.best = {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}
            self.result.val_loss, self.result.best_iteration = loss, self.iteration
            self.result.quality = quality

    def val_loss(self, phase: Phase[Any], measure: Callable[[Any], Tensor]) -> float:
        """Validation loss: mean of ``measure`` (``phase.val``) over evenly spaced windows, the same at every validation."""
        picks = spread(self.selecting.lengths, phase.windows, self.settings.val_windows)
        groups = np.array_split(picks, -(-len(picks) // phase.batch_size))
        total = 0.0
        for group, batch in zip(groups, self.selecting.batches(groups, phase.windows.length), strict=True):
            with autocast(self.val.device, self.settings.dtype):
                total += float(measure(batch)) * len(group)
        return total / len(picks)

    def look(self, phase: Phase) -> dict[str, float]:
        """Compute PSNR, SSIM and sharpness of reconstructions or predictions, and write sample pictures.

        Uses evenly spaced validation windows, the same at every validation. The pictures show up to 3 of them, including the
        first and the last. Empty for a model that shows no pictures.
        """
        if phase.picture is not None:
            picks = spread(self.selecting.lengths, phase.windows, PICTURED)
            (batch,) = self.selecting.batches([picks], phase.windows.length)
            self.write(phase, phase.picture(batch))
            return {}
        predict_step = phase.predict_step or self.model.predict_step
        windows = phase.windows if phase.predict_step else self.model.windows
        picks = spread(self.val.lengths, windows, self.settings.val_windows)
        pictured = spaced(len(picks), PICTURED)
        groups = np.array_split(np.arange(len(picks)), -(-len(picks) // phase.batch_size))
        quality, drawn = PictureQuality(), []
        batches = self.val.batches([picks[group] for group in groups], windows.length)
        for group, batch in zip(groups, batches, strict=True):
            with autocast(self.val.device, self.settings.dtype):
                judged = predict_step(batch)
                if judged.reconstruction is None:
                    return {}
                shown = judged.reconstruction().float()  # [B, J, C, H, W]
                of = judged.target().float() if judged.target else batch.frames[:, list(windows.judged)]
            if not judged.target:  # image quality is only meaningful for pictures of the footage
                quality.add(shown.flatten(0, 1), of.flatten(0, 1))
            drawn += [(of[at].cpu().numpy(), shown[at].cpu().numpy()) for at, n in enumerate(group) if n in pictured]
        self.draw(phase, drawn)
        return quality.means()

    def draw(self, phase: Phase, windows: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Draw input above output for validation windows: a strip and, for several frames per window, an animation.

        If a window shows a single frame, the windows are drawn side by side.
        """
        moving = len(windows[0][0]) > 1
        if moving:
            strips = [strip(inputs, outputs) for inputs, outputs in windows]
        else:
            inputs, outputs = (np.concatenate(part) for part in zip(*windows, strict=True))
            strips = [strip(inputs, outputs)]
        path = self.write(phase, np.concatenate(strips))
        if moving:
            path = path.with_suffix(".webp")
            write_animation(path, animation(windows))
            self.callback.picture(path)

    def write(self, phase: Phase, picture: np.ndarray) -> Path:
        """Write and report a sample picture, uint8 RGB ``[H, W, 3]``. Returns its path."""
        path = self.checkpoint.folder / "samples" / f"{phase.name}-{self.iteration:06d}.png"
        write_png(path, picture)
        self.callback.picture(path)
        return path


def spread(lengths: list[int], windows: Windows, count: int) -> np.ndarray:
    """Choose up to ``count`` evenly spaced windows of consecutive frames from validation footage.

    Returns ``[n, 4]``: (segment, start, stride, number from 0). Raises :class:`VadError` when no segment is long enough.
    """
    if max(lengths) < windows.length:
        raise VadError(
            f"train.val_share: no held-out clip is as long as one window of {windows.length} frames (the longest has "
            f"{max(lengths)}); hold out more, give longer clips, or set a shorter window"
        )
    every = training_windows(lengths, replace(windows, strides=(1,)))
    chosen = every[spaced(len(every), count)]
    return np.column_stack([chosen, np.arange(len(chosen))])
