"""Latent prediction: the front ends' sizes and phases, the LSTM's losses, its rollouts, and what scoring reads of it."""

import copy
from itertools import groupby

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.helpers.footage import make_store
from vadcore.checkpoint import CheckpointFolder
from vadcore.footage import Footage
from vadcore.latent.gaussians import draw
from vadcore.latent.points import PointBatch, Points
from vadcore.models import create_model, load_model, model_config, save_model
from vadcore.models.base import Batch
from vadcore.models.latent_lstm import Density
from vadcore.train import TrainSettings, Watcher, _Updates, train
from vadcore.windows import Segment

VCAE = {"name": "vcae", "conv": 4, "dense": 24, "z": 6, "batch_size": 8, "iterations": 6, "learning_rate": 1e-3}
CAE_VAE = {"name": "cae_vae", "conv": [4, 6, 8], "dense": 16, "vae_dense": 24, "z": 6, "batch_size": 8}
CAE_VAE |= {"cae_iterations": 4, "vae_iterations": 4, "deconv_iterations": 4}
SMALL = {
    "image_size": [16, 24],
    "frames": 8,
    "hidden": 12,
    "batch_size": 4,
    "iterations": 6,
    "warm_up": 3,
    "mixtures": 3,
}
FRONTS = [pytest.param(VCAE, id="vcae"), pytest.param(CAE_VAE, id="cae_vae")]
VARIANTS = [{"loss": loss, "diffs": diffs} for loss in ("mse", "kl", "mdn") for diffs in (False, True)]


def build(front=VCAE, **more):
    torch.manual_seed(0)
    return create_model("latent_lstm", SMALL | {"front_end": front} | more)


def points(b=3, t=8, z=6, seed=1) -> PointBatch:
    draws = torch.Generator().manual_seed(seed)
    return PointBatch(torch.randn(b, t, z, generator=draws), torch.randn(b, t, z, generator=draws) - 2)


def frames(b=2, t=8, h=16, w=24, seed=1) -> Batch:
    shown = torch.rand(b, t, 1, h, w, generator=torch.Generator().manual_seed(seed))
    return Batch(shown, torch.zeros(b, dtype=torch.long), torch.arange(t).expand(b, t))


@pytest.fixture
def footage(tmp_path):
    store = make_store(tmp_path, frames=24)
    whole = [Segment(clip, 0, 24) for clip in store.clips("train")]
    return lambda model: Footage.for_model(model, store, whole, None)


class TestPublishedFigures:
    def test_the_vcae_has_the_parameters_counted_by_hand(self):
        with torch.device("meta"):
            model = create_model("latent_lstm")
        cells = 32 * 64 * 64
        encoder = (9 * 1 + 1) * 32 + (cells + 1) * 1024 + (1024 + 1) * 2 * 32
        decoder = (32 + 1) * 1024 + (1024 + 1) * cells + (9 * 32 + 1) * 1
        assert sum(p.numel() for p in model.front.parameters()) == encoder + decoder

    def test_the_cae_and_vae_have_the_parameters_counted_by_hand(self):
        with torch.device("meta"):
            front = create_model("latent_lstm", {"front_end": {"name": "cae_vae"}}).front

        def count(module):
            return sum(p.numel() for p in module.parameters())

        cells = 32 * 32 * 32
        assert count(front.features) == (25 + 1) * 16 + (9 * 16 + 1) * 32 + (9 * 32 + 1) * 32
        assert count(front.bottleneck) == (cells + 1) * 512 + (512 + 1) * cells
        assert count(front.vae_encoder) == (cells + 1) * 1500 + (1500 + 1) * 2 * 256
        assert count(front.vae_decoder) == (256 + 1) * 1500 + (1500 + 1) * cells

    def test_the_lstm_has_the_parameters_counted_by_hand(self):
        with torch.device("meta"):
            model = create_model("latent_lstm")
        layers = sum(4 * 1024 * (below + 1024 + 2) for below in (32, 1024))  # torch has two biases a gate
        own = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("front."))
        assert own == layers + 2 * 2 * 1024 + (1024 + 1) * 32


class TestFrontEnds:
    @pytest.mark.parametrize("front", FRONTS)
    def test_frames_become_gaussians_and_points_become_frames(self, front):
        model = build(front).front.eval()
        mean, log_sigma = model.encode(frames().frames[:, 0])
        assert mean.shape == log_sigma.shape == (2, 6)
        drawn = model.decode(mean)
        assert drawn.shape == (2, 1, 16, 24)
        assert (drawn.min() >= 0) & (drawn.max() <= 1)

    def test_colour_has_three_channels(self):
        for front in (VCAE, CAE_VAE):
            model = build(front, color="rgb").front
            assert model.decode(model.encode(torch.rand(2, 3, 16, 24))[0]).shape == (2, 3, 16, 24)

    @pytest.mark.parametrize("front", FRONTS)
    def test_each_phase_moves_its_own_part_alone_and_learns(self, front, footage):
        model = build(front).front.train()
        source = footage(model)
        batch = source.batch(np.array([[0, 0, 1], [1, 5, 1], [2, 9, 1]]), 1)
        for phase in model.phases():
            phase.begin()
            before = copy.deepcopy(model.state_dict())
            update = _Updates(phase, processes=1)
            held_out = [phase.held_out(batch).item()]
            for _ in range(40):
                phase.step(batch, update)
            held_out.append(phase.held_out(batch).item())
            assert held_out[1] < held_out[0]
            moved = {name.split(".")[0] for name, value in model.state_dict().items() if not value.equal(before[name])}
            owned = {
                "vcae": {"encoder", "decoder"},
                "cae": {"features", "bottleneck", "cae_decoder"},
                "vae": {"vae_encoder", "vae_decoder"},
                "deconv": {"deconv"},
            }
            assert moved == owned[phase.name]

    def test_an_untrained_vcaes_points_follow_the_frames(self):
        # else they become N(0, 1), whatever is shown, before the decoder has learnt to read them
        front = create_model("latent_lstm", {"front_end": {"conv": 4, "dense": 256}}).front.eval()
        points, _ = front.encode(torch.rand(16, 1, 64, 64).round())
        assert points.std(0).mean() > 0.2

    def test_the_vcaes_loss_is_the_likelihood_of_what_its_drawn_points_show_and_their_divergence(self):
        front, batch = build(VCAE | {"samples": 3}).front.eval(), frames(t=1)
        (phase,) = front.phases()
        taken = {}
        torch.manual_seed(3)
        phase.step(batch, lambda name, loss: taken.update(loss=loss.detach()))
        torch.manual_seed(3)
        shown = batch.frames[:, 0]
        mean, log_sigma = front.encode(shown)
        drawn = [
            torch.distributions.Bernoulli(logits=front.decoder(draw(mean, log_sigma)), validate_args=False)
            for _ in range(3)
        ]
        nats = -torch.stack([pixels.log_prob(shown).sum((1, 2, 3)) for pixels in drawn]).mean()
        standard = torch.distributions.Normal(torch.zeros(6), torch.ones(6))
        apart = torch.distributions.kl_divergence(torch.distributions.Normal(mean, log_sigma.exp()), standard)
        torch.testing.assert_close(taken["loss"], nats + apart.sum(1).mean())

    @pytest.mark.parametrize("front", FRONTS)
    def test_in_training_it_drops_pixels_as_much_as_asked(self, front):
        shown = frames(t=1).frames[:, 0]
        for share, same in ((0.4, False), (0.0, True)):
            part = build(front | {"dropout": share}).front.train()
            part.phases()[0].begin()
            assert {layer.p for layer in part.modules() if isinstance(layer, torch.nn.Dropout)} == {share}
            assert part.encode(shown)[0].equal(part.encode(shown)[0]) == same
            part.eval()
            assert part.encode(shown)[0].equal(part.encode(shown)[0])

    def test_the_gradients_of_the_autoencoder_and_of_the_lstm_are_clipped_at_their_norm(self):
        model = build(CAE_VAE | {"clip_norm": 7.0}, clip_norm=3.0)
        assert [phase.clip_norm for phase in model.front.phases()] == [{"optimizer": 7.0}, {}, {}]
        assert model.phases()[0].clip_norm == {"optimizer": 3.0}

    def test_the_vaes_features_are_as_likely_as_under_a_gaussian_as_wide_as_the_errors(self):
        front = build(CAE_VAE).front.eval()
        batch = frames(t=1)
        _, vae, _ = front.phases()
        vae.begin()
        taken = {}
        torch.manual_seed(3)
        vae.step(batch, lambda name, loss: taken.update(loss=loss.detach()))
        torch.manual_seed(3)
        known = front.features(batch.frames[:, 0])
        mean, log_sigma = front.encode(batch.frames[:, 0])
        drawn = front._features_of(torch.cat([draw(mean, log_sigma) for _ in range(front.settings.samples)]))
        known = known.repeat(front.settings.samples, 1, 1, 1)
        sigma = (known - drawn).square().mean().sqrt()
        nats = -torch.distributions.Normal(drawn, sigma).log_prob(known).mean()
        standard = torch.distributions.Normal(torch.zeros(6), torch.ones(6))
        apart = torch.distributions.kl_divergence(torch.distributions.Normal(mean, log_sigma.exp()), standard)
        torch.testing.assert_close(taken["loss"], nats + apart.sum(1).mean() / known[0].numel())

    @pytest.mark.parametrize("part", ["cae_decoder", "deconv"])
    def test_however_dark_its_pictures_are_a_gradient_brings_them_back(self, part):
        front = build(CAE_VAE).front.train()
        phase = front.phases()[0 if part == "cae_decoder" else 2]
        phase.begin()
        bias = getattr(front, part)[-1].bias
        torch.nn.init.constant_(bias, -20)
        phase.step(frames(t=1), lambda name, loss: loss.backward())
        assert bias.grad < -1  # through a sigmoid it would be nothing

    def test_the_pictures_of_a_phase_are_what_it_rebuilds(self):
        model = build(CAE_VAE).front.eval()
        batch = frames(t=1)
        shown = {phase.name: phase.judge(batch) for phase in model.phases()}
        assert shown["cae"].shown().shape == shown["deconv"].shown().shape == batch.frames.shape
        assert shown["vae"].shown().shape == shown["vae"].shown_of().shape == (2, 1, 1, 8, 12)  # features

    def test_odd_sides_are_refused_where_they_are_halved(self):
        with pytest.raises(ValidationError, match="multiples of 2, such as"):
            model_config("latent_lstm", SMALL | {"image_size": [15, 24], "front_end": CAE_VAE})
        assert model_config("latent_lstm", SMALL | {"image_size": [15, 24], "front_end": VCAE})

    def test_an_unknown_front_end_is_refused(self):
        with pytest.raises(ValidationError, match="vcae or cae_vae"):
            model_config("latent_lstm", {"front_end": {"name": "gan"}})


class TestPoints:
    def test_they_are_the_encoders_for_the_frames_of_the_window(self, footage):
        model = build()
        source = footage(model)
        encoded = Points(model.front, source, torch.float32)
        assert encoded.lengths == source.lengths
        picks = np.array([[2, 3, 2], [0, 0, 1]])
        batch = encoded.batch(picks, 8)
        shown = source.batch(picks, 8).frames
        for n in range(2):
            mean, log_sigma = model.front.eval().encode(shown[n])
            torch.testing.assert_close(batch.mean[n], mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(batch.log_sigma[n], log_sigma, rtol=1e-4, atol=1e-5)

    def test_they_are_the_same_from_a_stream(self, footage, monkeypatch):
        monkeypatch.setattr("vadcore.latent.points.AT_ONCE", 7)
        model = build()
        source = footage(model)
        kept = Points(model.front, source, torch.float32)._points
        source.cache = "stream"
        torch.testing.assert_close(Points(model.front, source, torch.float32)._points, kept)


class TestPrediction:
    @pytest.mark.parametrize("variant", VARIANTS, ids=str)
    def test_it_sees_the_past_alone(self, variant):
        model = build(**variant).eval()
        z = points().mean
        changed = z.clone()
        changed[:, 5:] += 1
        one, other = (model.predict(given).point("mean") for given in (z, changed))
        torch.testing.assert_close(one[:, :5], other[:, :5])  # of the points 1 to 5
        assert not torch.allclose(one[:, 5:], other[:, 5:])

    @pytest.mark.parametrize("variant", VARIANTS, ids=str)
    def test_training_lowers_the_loss_and_leaves_the_front_end_alone(self, variant):
        model = build(**variant, dropout=0, learning_rate=1e-2).train()
        phase = model.phases()[0]
        phase.begin()
        before = copy.deepcopy(model.front.state_dict())
        update, batch = _Updates(phase, processes=1), points()
        first = float(phase.step(batch, update)["loss"])
        for _ in range(80):
            last = float(phase.step(batch, update)["loss"])
        assert last < first - 0.3 * abs(first)
        assert all(value.equal(before[name]) for name, value in model.front.state_dict().items())

    @pytest.mark.parametrize("diffs", [False, True])
    def test_the_loss_of_kl_is_the_divergence_from_what_is_predicted(self, diffs):
        model, batch = build(loss="kl", diffs=diffs).eval(), points()
        density = model.predict(batch.mean)
        sigma = batch.log_sigma[:, 1:].exp()
        if diffs:  # the difference of two independent Gaussians is as uncertain as both together
            sigma = (sigma.square() + batch.log_sigma[:, :-1].exp().square()).sqrt()
        expected = torch.distributions.kl_divergence(
            torch.distributions.Normal(batch.mean[:, 1:], sigma),
            torch.distributions.Normal(density.mean[:, :, 0], density.log_sigma[:, :, 0].exp()),
        )
        torch.testing.assert_close(model._loss(batch), expected.sum(-1).mean())

    def test_a_mixture_is_trained_on_drawn_points_and_judged_on_means(self):
        """So that no component becomes certain of a mean it has seen."""
        model, batch = build(loss="mdn", dropout=0), points()
        for training in (True, False):
            model.train(training)
            torch.manual_seed(3)
            loss = model._loss(batch)
            torch.manual_seed(3)
            z = draw(batch.mean, batch.log_sigma) if training else batch.mean
            torch.testing.assert_close(loss, model.predict(z).negative_log_likelihood(z[:, 1:]).mean())

    def test_in_training_the_lstm_drops_as_much_as_asked_before_each_layer(self):
        z = points().mean
        for share, same in ((0.4, False), (0.0, True)):
            model = build(dropout=share, layers=3).train()
            assert [layer.p for layer in model.dropouts] == [share] * 3
            assert model.predict(z).mean.equal(model.predict(z).mean) == same
            model.eval()
            assert model.predict(z).mean.equal(model.predict(z).mean)

    def test_differences_are_added_to_where_the_sequence_is(self):
        """A network that predicts no difference predicts the point before."""
        model = build(diffs=True).eval()
        torch.nn.init.zeros_(model.last.weight)
        torch.nn.init.zeros_(model.last.bias)
        z = points().mean
        torch.testing.assert_close(model.predict(z).point("mean"), z[:, :-1])

    def test_a_learned_state_stands_before_the_first_point(self):
        model, batch = build().train(), points()
        phase = model.phases()[0]
        phase.begin()
        phase.step(batch, _Updates(phase, processes=1))
        assert model.initial.abs().max() > 0
        assert not hasattr(build(initial_state="zeros"), "initial")

    def test_the_spread_of_mse_is_that_of_its_errors(self):
        model, batch = build().train(), points()
        (_, spread) = model.phases()
        spread.step(batch, None)
        assert model.training
        model.eval()
        error = model.predict(batch.mean).mean.squeeze(-2) - batch.mean[:, 1:]
        torch.testing.assert_close(model._spread().exp(), error.square().mean((0, 1)).sqrt(), rtol=1e-4, atol=1e-5)

    def test_points_of_a_mixture(self):
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
    def test_it_feeds_its_own_points_back(self, variant):
        """As predicting the frames that it made itself, as points, one by one."""
        model = build(**variant).eval()
        shown = frames(t=5).frames
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

    def test_drawn_rollouts_differ_and_judging_never_draws(self):
        model = build(loss="mdn", next="sample").eval()
        batch = frames()
        with torch.no_grad():
            assert not torch.equal(model.roll_out(batch.frames, 3), model.roll_out(batch.frames, 3))
            one, other = (model.judge(batch).measures["mse"] for _ in range(2))
        assert torch.equal(one, other)


class TestJudging:
    def test_every_frame_after_the_warm_up_is_judged(self):
        model = build().eval()
        with torch.no_grad():
            judged = model.judge(frames())
            z = model._points(frames().frames)[0]
            density = model.predict(z)
        assert model.windows.judged == (3, 4, 5, 6, 7)
        nll = density.negative_log_likelihood(z[:, 1:])[:, 2:]
        torch.testing.assert_close(judged.measures["latent_nll"], nll)
        expected = (model._frames(density.point("mean"))[:, 2:] - frames().frames[:, 3:]).square().mean((2, 3, 4))
        torch.testing.assert_close(judged.measures["mse"], expected, rtol=1e-4, atol=1e-6)

    def test_with_a_frame_skip_frames_are_judged_from_those_that_far_before(self):
        model = build(frame_skip=3).eval()
        assert model.windows.length == 24
        assert model.windows.judged == tuple(range(9, 24))
        batch = frames(t=24)
        with torch.no_grad():
            judged = model.judge(batch)
            apart = model.judge(Batch(batch.frames, batch.clip, batch.numbers))
            alone = build().eval()  # the same weights without a skip, on every third frame
            for first in range(3):
                part = alone.judge(frames_of(batch, slice(first, None, 3)))
                for name in ("mse", "latent_nll"):
                    torch.testing.assert_close(
                        judged.measures[name][:, first::3], part.measures[name], rtol=1e-4, atol=1e-6
                    )
        assert torch.equal(apart.measures["mse"], judged.measures["mse"])


def frames_of(batch: Batch, part: slice) -> Batch:
    return Batch(batch.frames[:, part], batch.clip, batch.numbers[:, part])


def test_the_published_checks_of_settings():
    config = model_config("latent_lstm", {})
    assert (config.frames, config.hidden, config.layers, config.dropout, config.clip_norm) == (30, 1024, 2, 0.3, 10)
    assert config.front_end.learning_rate == 3e-5
    assert model_config("latent_lstm", {"loss": "mdn", "diffs": True}).facts == {"variant": "vcae, mdn of differences"}
    with pytest.raises(ValidationError, match="warm_up 8: at most 7"):
        model_config("latent_lstm", SMALL | {"warm_up": 8})


def test_a_training_from_front_end_to_saved_model(footage, tmp_path):
    model = build(CAE_VAE)
    source = footage(model)
    settings = TrainSettings(check_every=3, held_out_windows=4, log_every=1)
    watcher = Watcher(say=lambda text: None)
    parts = CheckpointFolder(tmp_path / "front", "a")

    def run(folder: str):
        return train(model, source, source, settings, CheckpointFolder(tmp_path / folder, "train-a"), watcher, parts)

    result = run("lstm")
    assert [phase for phase, _ in groupby(row["phase"] for row in result.history)] == ["cae", "vae", "deconv", "lstm"]
    assert result.iterations == 3 * 4 + 6
    assert result.windows == 6 * 4  # of the last alone: windows a second are its own
    made = {path.name for path in (parts.folder / "samples").iterdir()}
    assert {"cae-000003.png", "vae-000003.png", "deconv-000003.png"} <= made
    after = copy.deepcopy(model.front.state_dict())
    model = build(CAE_VAE, loss="kl")  # another variant finds the same front end trained
    other = run("kl")
    assert all(value.equal(after[name]) for name, value in model.front.state_dict().items())
    assert other.history[:12] == result.history[:12]
    save_model(model, "latent_lstm", tmp_path / "model")
    with torch.no_grad():
        one, other = (each.judge(frames()).measures["latent_nll"] for each in (model, load_model(tmp_path / "model")))
    torch.testing.assert_close(one, other)
