"""FlowNet's training: multi-scale end-point error on generated pairs, run by the same trainer as every system.

:class:`GeneratedPairs` stands in the place of footage, so that checkpoints, exact resume, selection of the best weights on
held-out pairs and several processes are those of :func:`vadcore.training.trainer.train`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vadcore.config import FlowTraining
from vadcore.data.windows import Batch, Windows
from vadcore.flow.flownet import FLOW_UNIT, FlowNetSD, flow_between, save_flownet
from vadcore.flow.synthetic_pairs import HELD_OUT_SEED, PairGenerator
from vadcore.models.base import Model, Phase, Prediction, Update
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.training.trainer import Callback, Trained, TrainSettings, train
from vadcore.utils.render import flow_to_rgb, write_png

WEIGHTS = (0.005, 0.01, 0.02, 0.08, 0.32)  # of the scales, finest first, as published
HALVINGS = (1 / 2, 2 / 3, 5 / 6)  # of the training, where the rate halves: 300k, 400k, 500k of the published 600k
DIFFERENT = 1 << 20  # pairs; after so many they come again
AHEAD = 4  # batches generated ahead
PICTURED = 4  # held-out pairs shown at every check point


def multiscale_loss(flows: tuple[Tensor, ...], target: Tensor) -> Tensor:
    """Weighted sum over the scales of the end-point error, summed over a scale's pixels, mean over the batch.

    flows: ``[B, 2, h, w]`` each, finest first, in units of 20 px. target: true flow in pixels ``[B, 2, H, W]``, averaged
    down to each scale. Dosovitskiy et al. 2015, "FlowNet: Learning Optical Flow with Convolutional Networks".
    """
    loss = target.new_zeros(())
    for weight, flow in zip(WEIGHTS, flows, strict=True):
        true = F.adaptive_avg_pool2d(target / FLOW_UNIT, flow.shape[2:])
        loss = loss + weight * torch.linalg.vector_norm(flow - true, dim=1).sum((1, 2)).mean()
    return loss


class GeneratedPairs:
    """Pairs 0 to ``count`` - 1 of a generator as batches on ``device``, in place of
    :class:`vadcore.data.loader.ClipLoader`. They look like one clip whose windows of two frames are the pairs."""

    def __init__(self, generator: PairGenerator, count: int, device: torch.device | str = "cpu"):
        self.generator, self.device = generator, torch.device(device)
        self.lengths = [count + 1]

    def batch(self, picks: np.ndarray, length: int = 2) -> Batch:
        """The pairs ``picks`` ``[B, 3]``, of (0, number, 1)."""
        pairs = self.generator.batch(picks[:, 1])
        frames = torch.from_numpy(pairs.frames).to(self.device).permute(0, 1, 4, 2, 3).float() / 255
        flow = torch.from_numpy(pairs.flow).to(self.device)[:, None]
        numbers = torch.from_numpy(picks[:, 1:2] + np.arange(length))
        return Batch(frames.contiguous(), torch.zeros(len(picks), dtype=torch.long), numbers, flow)

    def batches(self, plan: Iterable[np.ndarray], length: int = 2) -> Iterator[Batch]:
        """A batch for every entry of ``plan``, generated ahead."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            ahead: deque = deque()
            for picks in plan:
                ahead.append(pool.submit(self.batch, picks, length))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            for batch in ahead:
                yield batch.result()


class FlowLearner(Model):
    """FlowNet as the trainer sees a system: pairs with true flow in, end-point error out."""

    windows = Windows(2, flow=True)
    score = "epe"

    def __init__(self, config: FlowTraining):
        super().__init__(config)
        self.net = FlowNetSD(config.width)

    def phases(self) -> list[Phase]:
        config = self.config
        adam = torch.optim.Adam(self.net.parameters(), config.learning_rate)
        milestones = sorted({round(config.iterations * share) for share in HALVINGS})
        halving = torch.optim.lr_scheduler.MultiStepLR(adam, milestones, gamma=0.5)
        return [
            Phase(
                "flownet",
                config.iterations,
                self.windows,
                config.batch_size,
                self._step,
                optimizers={"adam": adam},
                schedulers={"adam": halving},
                val=lambda batch: self.predict_step(batch).measures["epe"].mean(),
            )
        ]

    def _step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        flows = self.net(batch.frames[:, 0], batch.frames[:, 1])
        loss = multiscale_loss(flows, batch.flow[:, 0])
        update("adam", loss)
        return {"loss": loss.detach()}

    def estimate(self, batch: Batch) -> Tensor:
        """Flow of every pair in pixels, ``[B, 2, H, W]``."""
        return flow_between(self.net, batch.frames[:, 0], batch.frames[:, 1])

    def predict_step(self, batch: Batch) -> Prediction:
        error = torch.linalg.vector_norm(self.estimate(batch) - batch.flow[:, 0], dim=1)  # [B, H, W]
        return Prediction({"epe": error.mean((1, 2))[:, None]}, error[:, None])


def learn_flow(
    config: FlowTraining,
    settings: TrainSettings,
    checkpoint: CheckpointFolder,
    out: Path | str,
    device: torch.device | str = "cpu",
    watcher: Callback | None = None,
) -> Trained:
    """Train FlowNet on generated pairs and write the weights that did best on held-out ones to ``out`` (safetensors).

    Parameters
    ----------
    checkpoint: where to go on from; its key must identify ``config`` and ``settings``. At check points it gets
        ``samples/<iteration>.png``: held-out first frames, true flow, estimated flow.

    Returns
    -------
    What :func:`vadcore.training.trainer.train` does; ``val_loss`` is the mean end-point error in pixels on held-out
    pairs, which are the same whatever ``settings.seed`` is.
    """
    watcher = watcher or Callback()
    torch.manual_seed(settings.seed)
    learner = FlowLearner(config)
    pairs = PairGenerator(config.image_size, settings.seed, config.motion, config.still)
    unseen = PairGenerator(config.image_size, HELD_OUT_SEED, config.motion, config.still)
    footage = GeneratedPairs(pairs, min(config.iterations * config.batch_size, DIFFERENT), device)
    val = GeneratedPairs(unseen, settings.val_windows, device)
    pictured = val.batch(np.stack([np.zeros(PICTURED), np.arange(PICTURED), np.ones(PICTURED)], 1).astype(int))

    def metrics(phase: str, iteration: int, values: dict[str, float]) -> None:
        if "val" in values:  # a check point
            path = checkpoint.folder / "samples" / f"{iteration:06d}.png"
            if not path.exists():  # else told again of a training that had finished before
                _draw(path, pictured, learner)
                watcher.picture(path)
        watcher.metrics(phase, iteration, values)

    result = train(learner, footage, val, settings, checkpoint, replace(watcher, metrics=metrics))
    facts = {
        "image_size": config.image_size,
        "iterations": result.iterations,
        "best_iteration": result.best_iteration,
        "held_out_epe": result.val_loss,
    }
    save_flownet(learner.net, out, facts)
    return result


@torch.no_grad()
def _draw(path: Path, batch: Batch, learner: FlowLearner) -> None:
    """A row a pair: first frame, true flow, estimated flow in the same colours."""
    estimated = learner.estimate(batch).cpu().numpy()
    rows = []
    for frame, true, found in zip(batch.frames[:, 0].cpu(), batch.flow[:, 0].cpu().numpy(), estimated, strict=True):
        longest = max(1.0, float(np.hypot(*true).max()))
        seen = (frame.permute(1, 2, 0) * 255).round().byte().numpy()
        rows.append(np.concatenate((seen, flow_to_rgb(true, longest), flow_to_rgb(found, longest)), axis=1))
    write_png(path, np.concatenate(rows))
