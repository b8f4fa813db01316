"""Latent prediction: the losses of the LSTM, rollouts, scores and a whole training."""

import copy
from itertools import groupby

import pytest
import torch
from pydantic import ValidationError

from tests.helpers.footage import make_store
from tests.helpers.latent import CAE_VAE, SMALL, build, random_frames
from vadcore.data.loader import ClipLoader
from vadcore.data.windows import Batch, Segment
from vadcore.models import create_model, load_model, model_config, save_model
from vadcore.models.latent.gaussians import draw
from vadcore.models.latent.points import PointBatch
from vadcore.models.latent_lstm import Density
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.training.trainer import Callback, TrainSettings, _Updates, train

VARIANTS = [{"loss": loss, "diffs": diffs} for loss in ("mse", "kl", "mdn") for diffs in (False, True)]


def points(b=3, t=8, z=6, seed=1) -> PointBatch:
    draws = torch.Generator().manual_seed(seed)
    return PointBatch(torch.randn(b, t, z, generator=draws), torch.randn(b, t, z, generator=draws) - 2)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("footage"), test=0, frames=24)
    whole = [Segment(clip, 0, 24) for clip in store.clips("train")]
    return lambda model: ClipLoader.for_model(model, store, whole, None)


class TestPublishedFigures:
    def test_lstm_parameter_count_matches_publication(self):
        with torch.device("meta"):
            model = create_model("latent_lstm")
        layers = sum(4 * 1024 * (below + 1024 + 2) for below in (32, 1024))  # torch has two biases a gate
        own = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("front."))
        assert own == layers + 2 * 2 * 1024 + (1024 + 1) * 32


class TestPrediction:
    @pytest.mark.parametrize("variant", VARIANTS, ids=str)
    def test_prediction_depends_on_the_past_only(self, variant):
        model = build(**variant).eval()
        z = points().mean
        changed = z.clone()
        changed[:, 5:] += 1
        one, other = (model.predict(given).point("mean") for given in (z, changed))
        torch.testing.assert_close(one[:, :5], other[:, :5])  # points 1 to 5
        assert not torch.allclose(one[:, 5:], other[:, 5:])

    @pytest.mark.parametrize("variant", VARIANTS, ids=str)
    def test_training_with_frozen_front_end(self, variant):
        model = build(**variant, dropout=0, learning_rate=2e-2).train()
        phase = model.phases()[0]
        phase.begin()
        before = copy.deepcopy(model.front.state_dict())
        update, batch = _Updates(phase, processes=1), points()
        first = float(phase.step(batch, update)["loss"])
        for _ in range(40):
            last = float(phase.step(batch, update)["loss"])
        assert last < first - 0.3 * abs(first)
        assert all(value.equal(before[name]) for name, value in model.front.state_dict().items())

    @pytest.mark.parametrize("diffs", [False, True])
    def test_kl_loss_is_divergence_from_prediction(self, diffs):
        model, batch = build(loss="kl", diffs=diffs).eval(), points()
        density = model.predict(batch.mean)
        sigma = batch.log_sigma[:, 1:].exp()
        if diffs:  # variances of independent Gaussians add up
            sigma = (sigma.square() + batch.log_sigma[:, :-1].exp().square()).sqrt()
        expected = torch.distributions.kl_divergence(
            torch.distributions.Normal(batch.mean[:, 1:], sigma),
            torch.distributions.Normal(density.mean[:, :, 0], density.log_sigma[:, :, 0].exp()),
        )
        torch.testing.assert_close(model._loss(batch), expected.sum(-1).mean())

    def test_mixture_trains_on_samples(self):
        """Otherwise a component could collapse onto a mean of the training data."""
        model, batch = build(loss="mdn", dropout=0), points()
        for training in (True, False):
            model.train(training)
            torch.manual_seed(3)
            loss = model._loss(batch)
            torch.manual_seed(3)
            z = draw(batch.mean, batch.log_sigma) if training else batch.mean
            torch.testing.assert_close(loss, model.predict(z).negative_log_likelihood(z[:, 1:]).mean())

    def test_dropout_in_training_only(self):
        z = points().mean
        for share, same in ((0.4, False), (0.0, True)):
            model = build(dropout=share, layers=3).train()
            assert [layer.p for layer in model.dropouts] == [share] * 3
            assert model.predict(z).mean.equal(model.predict(z).mean) == same
            model.eval()
            assert model.predict(z).mean.equal(model.predict(z).mean)

    def test_predicted_differences_are_added(self):
        """A network that predicts a difference of zero predicts the previous point."""
        model = build(diffs=True).eval()
        torch.nn.init.zeros_(model.last.weight)
        torch.nn.init.zeros_(model.last.bias)
        z = points().mean
        torch.testing.assert_close(model.predict(z).point("mean"), z[:, :-1])

    def test_initial_state_is_learned(self):
        model, batch = build().train(), points()
        phase = model.phases()[0]
        phase.begin()
        phase.step(batch, _Updates(phase, processes=1))
        assert model.initial.abs().max() > 0
        assert not hasattr(build(initial_state="zeros"), "initial")

    def test_spread_of_mse(self):
        model, batch = build().train(), points()
        (_, spread) = model.phases()
        spread.step(batch, None)
        assert model.training
        model.eval()
        error = model.predict(batch.mean).mean.squeeze(-2) - batch.mean[:, 1:]
        torch.testing.assert_close(model._spread().exp(), error.square().mean((0, 1)).sqrt(), rtol=1e-4, atol=1e-5)

    def test_point_of_a_mixture(self):
        logits = torch.tensor([0.0, 5.0, 1.0]).log_softmax(0)
        density = Density(logits, torch.tensor([[1.0], [2.0], [9.0]]), torch.full((3, 1), -5.0))
        assert float(density.point("mode")) == 2
        assert float(density.point("mean")) == pytest.approx(float((logits.exp() * torch.tensor([1.0, 2, 9])).sum()))
        torch.manual_seed(0)
        many = Density(logits.expand(4000, 3), *(part.expand(4000, 3, 1) for part in (density.mean, density.log_sigma)))
        drawn = many.point("sample").round()
        assert {float(value) for value in drawn.unique()} == {1.0, 2.0, 9.0}
        assert float((drawn == 2).float().mean()) == pytest.approx(float(logits[1].exp()), abs=0.02)


class TestRollout:
    @pytest.mark.parametrize("variant", VARIANTS, ids=str)
    def test_rollout_feeds_predictions_back(self, variant):
        """A rollout equals repeated prediction from the points predicted before."""
        model = build(**variant).eval()
        shown = random_frames(t=5).frames
        with torch.no_grad():
            made = model.roll_out(shown, 4)
            assert made.shape == (2, 4 + 4, 1, 16, 24)
            z = model._points(shown)[0]
            for n in range(4):
                following = model.predict(torch.cat([z, z[:, -1:]], dim=1)).point("mean")[:, -1:]
                torch.testing.assert_close(made[:, 4 + n], model._frames(following)[:, 0], rtol=1e-4, atol=1e-5)
                z = torch.cat([z, following], dim=1)
            primed = model.predict(model._points(shown)[0]).point("mean")
            torch.testing.assert_close(made[:, :4], model._frames(primed), rtol=1e-4, atol=1e-5)

    def test_only_rollouts_are_sampled(self):
        model = build(loss="mdn", next="sample").eval()
        batch = random_frames()
        with torch.no_grad():
            assert not torch.equal(model.roll_out(batch.frames, 3), model.roll_out(batch.frames, 3))
            one, other = (model.predict_step(batch).measures["mse"] for _ in range(2))
        assert torch.equal(one, other)


class TestJudging:
    def test_frames_after_warm_up_are_judged(self):
        model = build().eval()
        with torch.no_grad():
            judged = model.predict_step(random_frames())
            z = model._points(random_frames().frames)[0]
            density = model.predict(z)
        assert model.windows.judged == (3, 4, 5, 6, 7)
        nll = density.negative_log_likelihood(z[:, 1:])[:, 2:]
        torch.testing.assert_close(judged.measures["latent_nll"], nll)
        expected = (
            (model._frames(density.point("mean"))[:, 2:] - random_frames().frames[:, 3:]).square().mean((2, 3, 4))
        )
        torch.testing.assert_close(judged.measures["mse"], expected, rtol=1e-4, atol=1e-6)

    def test_frame_skip_judges_interleaved_sequences(self):
        model = build(frame_skip=3).eval()
        assert model.windows.length == 24
        assert model.windows.judged == tuple(range(9, 24))
        batch = random_frames(t=24)
        with torch.no_grad():
            judged = model.predict_step(batch)
            apart = model.predict_step(Batch(batch.frames, batch.clip, batch.numbers))
            alone = build().eval()  # the same weights without a skip, on every third frame
            for first in range(3):
                part = alone.predict_step(frames_of(batch, slice(first, None, 3)))
                for name in ("mse", "latent_nll"):
                    torch.testing.assert_close(
                        judged.measures[name][:, first::3], part.measures[name], rtol=1e-4, atol=1e-6
                    )
        assert torch.equal(apart.measures["mse"], judged.measures["mse"])


def frames_of(batch: Batch, part: slice) -> Batch:
    return Batch(batch.frames[:, part], batch.clip, batch.numbers[:, part])


def test_defaults_facts_and_warm_up_limit():
    config = model_config("latent_lstm", {})
    assert (config.frames, config.hidden, config.layers, config.dropout, config.clip_norm) == (30, 1024, 2, 0.3, 10)
    assert config.front_end.learning_rate == 3e-5
    assert model_config("latent_lstm", {"loss": "mdn", "diffs": True}).facts == {"variant": "vcae, mdn of differences"}
    with pytest.raises(ValidationError, match=r"warm_up 8: .*\b7\b"):
        model_config("latent_lstm", SMALL | {"warm_up": 8})


def test_training_of_all_phases(footage, tmp_path):
    model = build(CAE_VAE)
    source = footage(model)
    settings = TrainSettings(check_every=3, val_windows=4, log_every=1, save_seconds=1e9)
    callback = Callback(say=lambda text: None)
    parts = CheckpointFolder(tmp_path / "front", "a")

    def run(folder: str):
        return train(model, source, source, settings, CheckpointFolder(tmp_path / folder, "train-a"), callback, parts)

    result = run("lstm")
    assert [phase for phase, _ in groupby(row["phase"] for row in result.history)] == ["cae", "vae", "deconv", "lstm"]
    assert result.iterations == 3 * 4 + 6
    assert result.windows == 6 * 4  # of the last phase only
    made = {path.name for path in (parts.folder / "samples").iterdir()}
    assert {"cae-000003.png", "vae-000003.png", "deconv-000003.png"} <= made
    after = copy.deepcopy(model.front.state_dict())
    model = build(CAE_VAE, loss="kl")  # another variant reuses the trained front end
    other = run("kl")
    assert all(value.equal(after[name]) for name, value in model.front.state_dict().items())
    assert other.history[:12] == result.history[:12]
    save_model(model, "latent_lstm", tmp_path / "model")
    with torch.no_grad():
        one, other = (
            each.predict_step(random_frames()).measures["latent_nll"]
            for each in (model, load_model(tmp_path / "model"))
        )
    torch.testing.assert_close(one, other)
