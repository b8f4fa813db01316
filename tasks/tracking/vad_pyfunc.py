"""Loader of a logged model for ``mlflow.pyfunc``, stored with the model and a copy of vadcore; it needs nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vadcore.detection.detector import Detector, load_detector
from vadcore.detection.stream import score_pictures
from vadcore.evaluation.inference import FRAMES_AT_ONCE
from vadcore.evaluation.preprocess import MEMBERS
from vadcore.models import Batch, Model, load_model
from vadcore.utils.device import choose_device


class VadModel:
    """Scores windows of footage; higher scores are more anomalous."""

    def __init__(self, model: Model, device: torch.device):
        self.model, self.device = model.to(device), device

    def predict(self, model_input: np.ndarray | dict[str, np.ndarray], params: dict | None = None) -> np.ndarray:
        """Score windows.

        Parameters
        ----------
        model_input: uint8 ``[B, T, H, W, C]``, or a dict with this as ``frames``. Systems that need them get in it ``flow``,
            float32 ``[B, T-1, 2, H, W]`` in pixels, and ``background``, uint8 ``[B, H, W, C]``, the still scene.
        params: not used.

        Returns
        -------
        The system's score, float32 ``[B, J]``, for the ``J`` frames of each window that it judges.
        """
        inputs = model_input if isinstance(model_input, dict) else {"frames": model_input}
        length = self.model.windows.length
        size = max(1, FRAMES_AT_ONCE[self.device.type] // length)
        count = len(inputs["frames"])
        parts = [np.empty((0, len(self.model.windows.judged)), np.float32)]
        with torch.inference_mode():
            for first in range(0, count, size):
                part = {name: torch.from_numpy(values[first : first + size]) for name, values in inputs.items()}
                frames = part["frames"].to(self.device).permute(0, 1, 4, 2, 3).float() / 255  # [b, T, C, H, W]
                b = len(frames)
                flow = part["flow"].to(self.device) if "flow" in part else None
                clip = torch.arange(first, first + b)  # treat each window as a separate clip
                batch = Batch(frames, clip, torch.arange(length).expand(b, length), flow)
                if "background" in part:  # to [b, C, H, W]
                    batch.background = part["background"].to(self.device).permute(0, 3, 1, 2).float() / 255
                scores = self.model.predict_step(batch).measures[self.model.score]  # [b, J]
                parts.append(scores.float().cpu().numpy())
        return np.concatenate(parts)


class FusedModel:
    """Scores clips with a fusion; higher scores are more anomalous."""

    def __init__(self, detector: Detector):
        self.detector = detector

    def predict(self, model_input: np.ndarray, params: dict | None = None) -> np.ndarray:
        """Score clips.

        Optical flow is computed if a member needs it.

        Parameters
        ----------
        model_input: uint8 RGB ``[B, T, H, W, 3]`` at the frame rate that the fusion was made for.
        params: not used.

        Returns
        -------
        Scores without smoothing, float32 ``[B, T]``; NaN if a member does not judge the frame.
        """
        scores = np.full(model_input.shape[:2], np.nan, np.float32)
        for row, clip in zip(scores, model_input, strict=True):
            row[:] = score_pictures(self.detector, clip, keep=lambda maps: None)[self.detector.score]
        return scores


def _load_pyfunc(path: str) -> VadModel | FusedModel:
    """Load a model for MLflow from the output of ``vadcore.models.save_model`` or a fusion's detector folder."""
    if (Path(path) / MEMBERS).is_dir():
        return FusedModel(load_detector(path))
    return VadModel(load_model(path), choose_device("auto"))
