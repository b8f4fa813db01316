"""Latent video prediction: a variational autoencoder of single frames and an LSTM over its latent vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator
from torch import Tensor, nn

from vadcore.data.windows import Batch, Windows
from vadcore.models import register_model
from vadcore.models.base import FixedSizeConfig, MapScore, Model, Phase, Prediction, Update, check_sides, step_of
from vadcore.models.components.error_maps import frame_errors
from vadcore.models.latent.cae_vae import CAEVAE, SHRINK, CAEVAEConfig
from vadcore.models.latent.front_end import FrontEnd
from vadcore.models.latent.gaussians import (
    bounded,
    divergence,
    draw,
    mixture_negative_log_likelihood,
    negative_log_likelihood,
)
from vadcore.models.latent.points import PointBatch, Points
from vadcore.models.latent.vcae import VCAE, VCAEConfig
from vadcore.utils.schema import Section, Size

if TYPE_CHECKING:
    from vadcore.data.loader import ClipLoader

State = tuple[Tensor, Tensor]  # hidden and cell state of an LSTM layer, [1, B, hidden] each
SPREAD_BATCHES = 32  # batches for measuring the spread of the prediction errors


def _front_end(section) -> str | None:
    return section.get("name", "vcae") if isinstance(section, dict) else getattr(section, "name", None)


AnyFrontEnd = Annotated[
    Annotated[VCAEConfig, Tag("vcae")] | Annotated[CAEVAEConfig, Tag("cae_vae")],
    Discriminator(_front_end, custom_error_type="front_end", custom_error_message="Its name should be vcae or cae_vae"),
]


class LatentLSTMConfig(FixedSizeConfig):
    """Defaults are the published values. Batch size and number of iterations of the LSTM are not published."""

    scoring_keys: ClassVar[tuple[str, ...]] = ("score", "warm_up", "next")

    image_size: Size = (64, 64)
    front_end: AnyFrontEnd = VCAEConfig()
    frames: int = Field(default=30, ge=2)  # frames in a sequence
    frame_skip: PositiveInt = 1  # distance between frames of a sequence; published: 1 for digits, 3 for film
    # mse: mean squared error of the latent vector. kl: Kullback-Leibler divergence of the encoder's Gaussian from the
    # predicted one. mdn: negative log-likelihood under a predicted mixture of Gaussians
    loss: Literal["mse", "kl", "mdn"] = "mse"
    diffs: bool = False  # input and predict differences of latent vectors; the first input is the first vector itself
    mixtures: PositiveInt = 20  # Gaussians in the mixture of mdn
    hidden: PositiveInt = 1024
    layers: PositiveInt = 2
    dropout: float = Field(default=0.3, ge=0, lt=1)  # before each LSTM layer
    initial_state: Literal["learned", "zeros"] = "learned"
    clip_norm: PositiveFloat = 10.0  # largest gradient norm
    batch_size: PositiveInt = 64
    iterations: PositiveInt = 10_000
    learning_rate: PositiveFloat = 1e-4
    warm_up: PositiveInt = 10  # first frames of a sequence, which get no score
    # latent vector taken from a predicted density: its mean; mode: mean of its heaviest Gaussian; sample: random draw
    next: Literal["mean", "mode", "sample"] = "mean"
    score: Literal["mse", "max_patch_mse", "latent_nll"] | MapScore = "mse"

    @property
    def trained_first(self) -> Section:
        return self.front_end

    @property
    def facts(self) -> dict[str, str | int | float]:
        return {"variant": f"{self.front_end.name}, {self.loss}{' of differences' if self.diffs else ''}"}

    @model_validator(mode="after")
    def _fits(self):
        if isinstance(self.front_end, CAEVAEConfig):
            check_sides(self.image_size, SHRINK)
        if self.warm_up >= self.frames:
            raise ValueError(f"warm_up {self.warm_up}: at most {self.frames - 1}, so that a sequence has scored frames")
        return self


@dataclass
class Density:
    """Predicted density of latent vectors: a Gaussian (K = 1) or a mixture of K Gaussians.

    logits: ``[..., K]``, unnormalised log weights. mean, log_sigma: ``[..., K, Z]``.
    """

    logits: Tensor
    mean: Tensor
    log_sigma: Tensor

    def negative_log_likelihood(self, z: Tensor) -> Tensor:
        """Negative log-likelihood of latent vectors ``[..., Z]``: ``[...]`` in nats."""
        if self.logits.shape[-1] == 1:
            return negative_log_likelihood(z, self.mean.squeeze(-2), self.log_sigma.squeeze(-2))
        return mixture_negative_log_likelihood(z, self.logits, self.mean, self.log_sigma)

    def point(self, how: str) -> Tensor:
        """Get a latent vector ``[..., Z]``. how: ``mean``, ``mode`` (mean of the heaviest Gaussian) or ``sample``."""
        if how == "mean":
            return (self.logits.softmax(-1).unsqueeze(-1) * self.mean).sum(-2)
        heaviest = self.logits.argmax(-1)
        chosen = heaviest if how == "mode" else torch.distributions.Categorical(logits=self.logits).sample()
        index = chosen[..., None, None].expand(*chosen.shape, 1, self.mean.shape[-1])
        mean, log_sigma = (part.gather(-2, index).squeeze(-2) for part in (self.mean, self.log_sigma))
        return mean if how == "mode" else draw(mean, log_sigma)


@register_model("latent_lstm", LatentLSTMConfig)
class LatentLSTM(Model):
    """Predict the latent vector of each frame from the previous ones, and decode it to a frame.

    The score is the error of the predicted frame. The measure ``latent_nll`` is the negative log-likelihood of the true
    latent vector, in nats. The loss ``mse`` predicts no density; there, the measure uses a Gaussian with the spread of the
    prediction errors on training footage.
    """

    config: LatentLSTMConfig
    front: FrontEnd
    spread_sum: Tensor  # [Z], sum of squared errors of ``spread_count`` predictions
    spread_count: Tensor

    def __init__(self, config: LatentLSTMConfig):
        super().__init__(config)
        settings = config.front_end
        self.front = VCAE(config, settings) if isinstance(settings, VCAEConfig) else CAEVAE(config, settings)
        skip, length = config.frame_skip, config.frames
        # a window holds frame_skip interleaved sequences, scored together, so that every frame gets a score
        self.windows = Windows(
            length * skip,
            judged=tuple(range(config.warm_up * skip, length * skip)),
            step=(length - config.warm_up) * skip,
        )
        z, k = self.front.z, config.mixtures
        self.dropouts = nn.ModuleList(nn.Dropout(config.dropout) for _ in range(config.layers))
        self.layers = nn.ModuleList(
            nn.LSTM(config.hidden if depth else z, config.hidden, batch_first=True) for depth in range(config.layers)
        )
        if config.initial_state == "learned":
            self.initial = nn.Parameter(torch.zeros(config.layers, 2, config.hidden))
        self.last = nn.Linear(config.hidden, {"mse": z, "kl": 2 * z, "mdn": k * (1 + 2 * z)}[config.loss])
        self.register_buffer("spread_sum", torch.zeros(z, dtype=torch.float64))
        self.register_buffer("spread_count", torch.zeros((), dtype=torch.float64))

    @property
    def trained_first(self) -> FrontEnd:
        return self.front

    def train(self, mode: bool = True) -> LatentLSTM:
        super().train(mode)
        self.front.eval()
        return self

    # --- prediction of latent vectors --------------------------------------------------------------------------------

    def _start(self, batch: int) -> list[State]:
        """Initial hidden and cell state of each layer, ``[1, batch, hidden]`` each."""
        if self.config.initial_state == "learned":
            return [
                (hidden.expand(1, batch, -1).contiguous(), cell.expand(1, batch, -1).contiguous())
                for hidden, cell in self.initial
            ]
        zeros = self.last.weight.new_zeros(1, batch, self.config.hidden)
        return [(zeros, zeros) for _ in self.layers]

    def _run(self, seen: Tensor, state: list[State]) -> tuple[Tensor, list[State]]:
        """Run the LSTM on ``seen`` ``[B, T, Z]``. Returns raw outputs ``[B, T, ...]`` and the states after the last step."""
        after = []
        for dropout, layer, before in zip(self.dropouts, self.layers, state, strict=True):
            seen, kept = layer(dropout(seen), before)
            after.append(kept)
        return self.last(seen).float(), after

    def _density(self, out: Tensor, origin: Tensor) -> Density:
        """Convert raw outputs to densities of the next latent vectors. With ``diffs``, adds ``origin`` ``[B, T, Z]``."""
        z, k = self.front.z, self.config.mixtures
        if self.config.loss == "mdn":
            logits, means, raw = out.split((k, k * z, k * z), dim=-1)
            mean, log_sigma = means.unflatten(-1, (k, z)), bounded(raw.unflatten(-1, (k, z)))
        else:
            logits = out.new_zeros(*out.shape[:-1], 1)
            mean = out[..., None, :z]
            log_sigma = bounded(out[..., None, z:]) if self.config.loss == "kl" else self._spread().expand_as(mean)
        return Density(logits, mean + origin.unsqueeze(-2) if self.config.diffs else mean, log_sigma)

    def _spread(self) -> Tensor:
        """Log of the root mean squared error of each latent dimension, ``[Z]``; 0 before it is measured."""
        if not self.spread_count:
            return torch.zeros_like(self.spread_sum, dtype=torch.float32)
        return ((self.spread_sum / self.spread_count).clamp(min=1e-12).log() / 2).float()

    def _seen(self, z: Tensor) -> Tensor:
        """LSTM input for latent vectors ``[B, T, Z]``: unchanged, or with ``diffs`` the first one, then differences."""
        return torch.diff(z, dim=1, prepend=torch.zeros_like(z[:, :1])) if self.config.diffs else z

    def predict(self, z: Tensor) -> Density:
        """Predict latent vectors 1 to T of ``z`` ``[B, T + 1, Z]``, each from the ones before it: ``[B, T, K, ...]``."""
        out, _ = self._run(self._seen(z)[:, :-1], self._start(len(z)))
        return self._density(out, z[:, :-1])

    # --- training ----------------------------------------------------------------------------------------------------

    def phases(self) -> list[Phase]:
        config = self.config
        own = [parameter for name, parameter in self.named_parameters() if not name.startswith("front.")]
        sequences = Windows(config.frames, (config.frame_skip,))

        def source(footage: ClipLoader, dtype: torch.dtype) -> Points:
            return Points(self.front, footage, dtype)

        def begin() -> None:
            self.front.requires_grad_(False)

        learn = Phase(
            "lstm",
            config.iterations,
            sequences,
            config.batch_size,
            step_of(self._loss),
            {"optimizer": torch.optim.Adam(own, config.learning_rate, fused=True)},
            clip_norm={"optimizer": config.clip_norm},
            val=self._loss,
            begin=begin,
            source=source,
        )
        if config.loss != "mse":
            return [learn]
        return [learn, Phase("spread", SPREAD_BATCHES, sequences, config.batch_size, self._gather, source=source)]

    def _loss(self, batch: PointBatch) -> Tensor:
        """Training and validation loss. mse: mean over latent dimensions. kl, mdn: nats per latent vector."""
        z = batch.mean
        if self.config.loss == "mdn" and self.training:
            z = draw(z, batch.log_sigma)  # keeps a Gaussian from collapsing onto a mean it has seen
        density = self.predict(z)
        following = z[:, 1:]
        if self.config.loss == "mse":
            return (density.mean.squeeze(-2) - following).square().mean()
        if self.config.loss == "mdn":
            return density.negative_log_likelihood(following).mean()
        true = batch.log_sigma[:, 1:]
        if self.config.diffs:  # log sigma of the difference of two independent Gaussians
            true = torch.logaddexp(2 * true, 2 * batch.log_sigma[:, :-1]) / 2
        return divergence(following, true, density.mean.squeeze(-2), density.log_sigma.squeeze(-2)).mean()

    @torch.no_grad()
    def _gather(self, batch: PointBatch, update: Update) -> dict[str, Tensor]:
        self.eval()
        error = (self.predict(batch.mean).mean.squeeze(-2) - batch.mean[:, 1:]).square()
        self.train()
        self.spread_sum += error.flatten(0, 1).sum(0).double()
        self.spread_count += error.shape[0] * error.shape[1]
        return {"loss": error.mean()}  # for the log only

    # --- frames ------------------------------------------------------------------------------------------------------

    def _points(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode frames ``[B, T, C, H, W]`` to mean and log sigma, ``[B, T, Z]`` each."""
        mean, log_sigma = self.front.encode(frames.flatten(0, 1))
        return mean.unflatten(0, frames.shape[:2]), log_sigma.unflatten(0, frames.shape[:2])

    def _frames(self, z: Tensor) -> Tensor:
        """Decode latent vectors ``[B, T, Z]`` to frames ``[B, T, C, H, W]``."""
        return self.front.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def predict_step(self, batch: Batch) -> Prediction:
        skip, first = self.config.frame_skip, self.config.warm_up
        b = len(batch.frames)
        z = self._points(batch.frames)[0]  # [B, T * skip, Z]
        apart = z.unflatten(1, (-1, skip)).transpose(1, 2).flatten(0, 1)  # [B * skip, T, Z]
        density = self.predict(apart)

        def together(x: Tensor) -> Tensor:
            """``[B * skip, T, ...]`` to ``[B, T * skip, ...]``."""
            return x.unflatten(0, (b, skip)).transpose(1, 2).flatten(1, 2)

        # the first frame of a sequence has no prediction: there is one prediction fewer than frames
        nll = together(density.negative_log_likelihood(apart[:, 1:])[:, first - 1 :])
        predicted = self._frames(together(density.point(self._calm)[:, first - 1 :]))
        measures, maps = frame_errors(predicted, batch.frames[:, first * skip :])
        return Prediction({**measures, "latent_nll": nll}, maps, lambda: predicted)

    @property
    def _calm(self) -> str:
        """``next`` for scoring, which must be deterministic: ``mean`` in place of ``sample``."""
        return "mean" if self.config.next == "sample" else self.config.next

    def roll_out(self, frames: Tensor, steps: int) -> Tensor:
        """Predict future frames autoregressively.

        Parameters
        ----------
        frames: ``[B, P, C, H, W]`` in 0..1, ``frame_skip`` apart.
        steps: number of frames to predict after the input.

        Returns
        -------
        ``[B, P - 1 + steps, C, H, W]`` in 0..1. The first P - 1 predict the input frames 1 to P - 1 from the true latent
        vectors before them. The last ``steps`` continue the input, from predicted latent vectors where it has ended.
        """
        z = self._points(frames)[0]
        out, state = self._run(self._seen(z), self._start(len(z)))
        points = self._density(out, z).point(self.config.next)  # [B, P, Z]: predictions of frames 1 to P
        now, made = z[:, -1:], [points]
        for _ in range(steps - 1):
            following = made[-1][:, -1:]
            out, state = self._run(following - now if self.config.diffs else following, state)
            now = following
            made.append(self._density(out, now).point(self.config.next))
        return self._frames(torch.cat(made, dim=1))

    def reconstruct(self, frames: Tensor) -> Tensor:
        """Encode and decode frames ``[B, T, C, H, W]``: an upper bound for the quality of predictions."""
        return self._frames(self._points(frames)[0])
