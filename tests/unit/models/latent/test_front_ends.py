"""The front ends of latent prediction: sizes, phases, losses and the points they give."""

import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.helpers.footage import make_store
from tests.helpers.latent import CAE_VAE, SMALL, VCAE, build, random_frames
from vadcore.data.loader import ClipLoader
from vadcore.data.windows import Segment
from vadcore.models import create_model, model_config
from vadcore.models.latent.gaussians import draw
from vadcore.models.latent.points import Points
from vadcore.training.trainer import _Updates

FRONTS = [pytest.param(VCAE, id="vcae"), pytest.param(CAE_VAE, id="cae_vae")]


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("footage"), test=0, frames=24)
    whole = [Segment(clip, 0, 24) for clip in store.clips("train")]
    return lambda model: ClipLoader.for_model(model, store, whole, None)


class TestPublishedFigures:
    def test_vcae_parameter_count_matches_publication(self):
        with torch.device("meta"):
            model = create_model("latent_lstm")
        cells = 32 * 64 * 64
        encoder = (9 * 1 + 1) * 32 + (cells + 1) * 1024 + (1024 + 1) * 2 * 32
        decoder = (32 + 1) * 1024 + (1024 + 1) * cells + (9 * 32 + 1) * 1
        assert sum(p.numel() for p in model.front.parameters()) == encoder + decoder

    def test_cae_vae_parameter_count_matches_publication(self):
        with torch.device("meta"):
            front = create_model("latent_lstm", {"front_end": {"name": "cae_vae"}}).front

        def count(module):
            return sum(p.numel() for p in module.parameters())

        cells = 32 * 32 * 32
        assert count(front.features) == (25 + 1) * 16 + (9 * 16 + 1) * 32 + (9 * 32 + 1) * 32
        assert count(front.bottleneck) == (cells + 1) * 512 + (512 + 1) * cells
        assert count(front.vae_encoder) == (cells + 1) * 1500 + (1500 + 1) * 2 * 256
        assert count(front.vae_decoder) == (256 + 1) * 1500 + (1500 + 1) * cells


class TestFrontEnds:
    @pytest.mark.parametrize("front", FRONTS)
    def test_encode_gives_gaussians_and_decode_frames(self, front):
        model = build(front).front.eval()
        mean, log_sigma = model.encode(random_frames().frames[:, 0])
        assert mean.shape == log_sigma.shape == (2, 6)
        drawn = model.decode(mean)
        assert drawn.shape == (2, 1, 16, 24)
        assert (drawn.min() >= 0) & (drawn.max() <= 1)

    def test_rgb_has_three_channels(self):
        for front in (VCAE, CAE_VAE):
            model = build(front, color="rgb").front
            assert model.decode(model.encode(torch.rand(2, 3, 16, 24))[0]).shape == (2, 3, 16, 24)

    @pytest.mark.parametrize("front", FRONTS)
    def test_each_phase_trains_its_own_part(self, front, footage):
        model = build(front).front.train()
        source = footage(model)
        batch = source.batch(np.array([[0, 0, 1], [1, 5, 1], [2, 9, 1]]), 1)
        for phase in model.phases():
            phase.begin()
            before = copy.deepcopy(model.state_dict())
            update = _Updates(phase, processes=1)
            val = [phase.val(batch).item()]
            for _ in range(30):
                phase.step(batch, update)
            val.append(phase.val(batch).item())
            assert val[1] < val[0]
            moved = {name.split(".")[0] for name, value in model.state_dict().items() if not value.equal(before[name])}
            owned = {
                "vcae": {"encoder", "decoder"},
                "cae": {"features", "bottleneck", "cae_decoder"},
                "vae": {"vae_encoder", "vae_decoder"},
                "deconv": {"deconv"},
            }
            assert moved == owned[phase.name]

    def test_untrained_vcae_points_depend_on_frames(self):
        # otherwise they would become N(0, 1) before the decoder has learnt to use them
        front = create_model("latent_lstm", {"front_end": {"conv": 4, "dense": 256}}).front.eval()
        points, _ = front.encode(torch.rand(16, 1, 64, 64).round())
        assert points.std(0).mean() > 0.2

    def test_vcae_loss_is_likelihood_plus_divergence(self):
        front, batch = build(VCAE | {"samples": 3}).front.eval(), random_frames(t=1)
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
    def test_dropout_in_training_only(self, front):
        shown = random_frames(t=1).frames[:, 0]
        for share, same in ((0.4, False), (0.0, True)):
            part = build(front | {"dropout": share}).front.train()
            part.phases()[0].begin()
            assert {layer.p for layer in part.modules() if isinstance(layer, torch.nn.Dropout)} == {share}
            assert part.encode(shown)[0].equal(part.encode(shown)[0]) == same
            part.eval()
            assert part.encode(shown)[0].equal(part.encode(shown)[0])

    def test_gradient_norms_are_clipped(self):
        model = build(CAE_VAE | {"clip_norm": 7.0}, clip_norm=3.0)
        assert [phase.clip_norm for phase in model.front.phases()] == [{"optimizer": 7.0}, {}, {}]
        assert model.phases()[0].clip_norm == {"optimizer": 3.0}

    def test_vae_likelihood_uses_error_spread(self):
        front = build(CAE_VAE).front.eval()
        batch = random_frames(t=1)
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
    def test_dark_pictures_still_have_a_gradient(self, part):
        front = build(CAE_VAE).front.train()
        phase = front.phases()[0 if part == "cae_decoder" else 2]
        phase.begin()
        bias = getattr(front, part)[-1].bias
        torch.nn.init.constant_(bias, -20)
        phase.step(random_frames(t=1), lambda name, loss: loss.backward())
        assert bias.grad < -1  # through a saturated sigmoid it would be zero

    def test_phases_show_what_they_reconstruct(self):
        model = build(CAE_VAE).front.eval()
        batch = random_frames(t=1)
        shown = {phase.name: phase.predict_step(batch) for phase in model.phases()}
        assert shown["cae"].reconstruction().shape == shown["deconv"].reconstruction().shape == batch.frames.shape
        assert shown["vae"].reconstruction().shape == shown["vae"].target().shape == (2, 1, 1, 8, 12)  # features

    def test_cae_vae_refuses_odd_sides(self):
        with pytest.raises(ValidationError, match="multiples of 2"):
            model_config("latent_lstm", SMALL | {"image_size": [15, 24], "front_end": CAE_VAE})
        assert model_config("latent_lstm", SMALL | {"image_size": [15, 24], "front_end": VCAE})

    def test_unknown_front_end_is_refused(self):
        with pytest.raises(ValidationError, match=r"vcae.*cae_vae"):
            model_config("latent_lstm", {"front_end": {"name": "gan"}})


class TestPoints:
    def test_points_are_encoded_frames(self, footage):
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

    def test_streamed_footage_gives_the_same_points(self, footage, monkeypatch):
        monkeypatch.setattr("vadcore.models.latent.points.AT_ONCE", 7)
        model = build()
        source = footage(model)
        kept = Points(model.front, source, torch.float32)._points
        source.cache = "stream"
        torch.testing.assert_close(Points(model.front, source, torch.float32)._points, kept)
