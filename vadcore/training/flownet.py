"""Train FlowNet with the multi-scale end-point error on synthetic image pairs.

:class:`GeneratedPairs` replaces the footage in :func:`vadcore.training.trainer.train`, which provides checkpoints, exact
resume, selection of the best weights on validation pairs, and distributed training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vadcore.config import FlowTraining
from vadcore.data.loader import made_ahead
from vadcore.data.windows import Batch, Windows
from vadcore.flow.flownet import FLOW_UNIT, FlowNetSD, flow_between, save_flownet
from vadcore.flow.synthetic_pairs import HELD_OUT_SEED, PairGenerator
from vadcore.models.base import Learner, Phase, Prediction, step_of, stored_flow
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.training.trainer import Callback, Trained, TrainSettings, train
from vadcore.utils.render import flow_to_rgb, write_png

WEIGHTS = (0.005, 0.01, 0.02, 0.08, 0.32)  # loss weights of the scales, finest first, as published
HALVINGS = (1 / 2, 2 / 3, 5 / 6)  # of training, when the learning rate halves; published: 300k, 400k, 500k of 600k
DIFFERENT = 1 << 20  # number of different pairs, which then repeat
PICTURED = 4  # validation pairs in the sample pictures


def multiscale_loss(flows: tuple[Tensor, ...], target: Tensor) -> Tensor:
    """Multi-scale end-point error: weighted sum over scales, sum over the pixels of a scale, mean over the batch.

    flows: estimated flow at each scale, ``[B, 2, h, w]``, finest first, in units of 20 px.
    target: true flow ``[B, 2, H, W]`` in pixels, average-pooled to each scale.
    Dosovitskiy et al. 2015, "FlowNet: Learning Optical Flow with Convolutional Networks".
    """
    loss = target.new_zeros(())
    for weight, flow in zip(WEIGHTS, flows, strict=True):
        height, width = flow.shape[2:]
        true = F.adaptive_avg_pool2d(target / FLOW_UNIT, (height, width))
        loss = loss + weight * torch.linalg.vector_norm(flow - true, dim=1).sum((1, 2)).mean()
    return loss


class GeneratedPairs:
    """Source of synthetic image pairs 0 to ``count`` - 1, as batches on ``device``.

    Has the interface of :class:`vadcore.training.trainer.Footage`. Looks like one clip whose windows of two frames are the
    pairs.
    """

    def __init__(self, generator: PairGenerator, count: int, device: torch.device | str = "cpu"):
        self.generator, self.device = generator, torch.device(device)
        self.lengths = [count + 1]

    def moving(self) -> None:
        """Not known; all pairs are drawn alike."""

    def batch(self, picks: np.ndarray, length: int = 2) -> Batch:
        """Generate the pairs ``picks`` ``[B, 3]``: rows of (0, number of the pair, 1)."""
        pairs = self.generator.batch(picks[:, 1])
        frames = torch.from_numpy(pairs.frames).to(self.device).permute(0, 1, 4, 2, 3).float() / 255
        flow = torch.from_numpy(pairs.flow).to(self.device)[:, None]
        numbers = torch.from_numpy(picks[:, 1:2] + np.arange(length))
        return Batch(frames.contiguous(), torch.zeros(len(picks), dtype=torch.long), numbers, flow)

    def batches(self, plan: Iterable[np.ndarray], length: int = 2) -> Iterator[Batch]:
        """Yield a batch for every entry of ``plan``, generated ahead in threads."""
        return (batch for _, batch in made_ahead(plan, lambda picks: self.batch(picks, length)))


class FlowLearner(Learner):
    """FlowNet with the interface that the trainer needs. The measure ``epe`` is the end-point error in pixels."""

    windows = Windows(2, flow=True)

    def __init__(self, config: FlowTraining):
        super().__init__()
        self.config = config
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
                step_of(self._loss),
                optimizers={"optimizer": adam},
                schedulers={"optimizer": halving},
                val=lambda batch: self.predict_step(batch).measures["epe"].mean(),
            )
        ]

    def _loss(self, batch: Batch) -> Tensor:
        return multiscale_loss(self.net(batch.frames[:, 0], batch.frames[:, 1]), stored_flow(batch)[:, 0])

    def estimate(self, batch: Batch) -> Tensor:
        """Estimate the flow of each pair, ``[B, 2, H, W]`` in pixels."""
        return flow_between(self.net, batch.frames[:, 0], batch.frames[:, 1])

    def predict_step(self, batch: Batch) -> Prediction:
        error = torch.linalg.vector_norm(self.estimate(batch) - stored_flow(batch)[:, 0], dim=1)  # [B, H, W]
        return Prediction({"epe": error.mean((1, 2))[:, None]}, error[:, None])


def learn_flow(
    config: FlowTraining,
    settings: TrainSettings,
    checkpoint: CheckpointFolder,
    out: Path | str,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Trained:
    """Train FlowNet on synthetic pairs and write the weights with the lowest validation error to ``out`` (safetensors).

    Parameters
    ----------
    checkpoint: folder to resume from; its key must identify ``config`` and ``settings``. At each validation,
        ``samples/<iteration>.png`` is written there: first frames of validation pairs, true flow, estimated flow.

    Returns
    -------
    The result of :func:`vadcore.training.trainer.train`. ``val_loss`` is the mean end-point error in pixels on validation
    pairs, which do not depend on ``settings.seed``.
    """
    callback = callback or Callback()
    torch.manual_seed(settings.seed)
    learner = FlowLearner(config)
    pairs = PairGenerator(config.image_size, settings.seed, config.motion, config.still)
    unseen = PairGenerator(config.image_size, HELD_OUT_SEED, config.motion, config.still)
    footage = GeneratedPairs(pairs, min(config.iterations * config.batch_size, DIFFERENT), device)
    val = GeneratedPairs(unseen, settings.val_windows, device)
    pictured = val.batch(np.stack([np.zeros(PICTURED), np.arange(PICTURED), np.ones(PICTURED)], 1).astype(int))

    def metrics(phase: str, iteration: int, values: dict[str, float]) -> None:
        if "val" in values:  # at each validation
            path = checkpoint.folder / "samples" / f"{iteration:06d}.png"
            if not path.exists():  # exists when a finished training reports its metrics again
                _draw(path, pictured, learner)
                callback.picture(path)
        callback.metrics(phase, iteration, values)

    result = train(learner, footage, val, settings, checkpoint, replace(callback, metrics=metrics))
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
    """Draw one row per pair: first frame, true flow, estimated flow with the same colour scale."""
    estimated = learner.estimate(batch).cpu().numpy()
    rows = []
    for frame, true, found in zip(
        batch.frames[:, 0].cpu(), stored_flow(batch)[:, 0].cpu().numpy(), estimated, strict=True
    ):
        longest = max(1.0, float(np.hypot(*true).max()))
        seen = (frame.permute(1, 2, 0) * 255).round().byte().numpy()
        rows.append(np.concatenate((seen, flow_to_rgb(true, longest), flow_to_rgb(found, longest)), axis=1))
    write_png(path, np.concatenate(rows))
