"""FlowNet2-SD: the published network, its weight files, its loss and its training."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vadcore.config import FlowTraining
from vadcore.flow.flownet import FlowNetSD, flow_between, load_flownet, save_flownet
from vadcore.flow.synthetic_pairs import HELD_OUT_SEED, PairGenerator
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.training.flownet import FlowLearner, GeneratedPairs, learn_flow, multiscale_loss
from vadcore.training.trainer import Callback, TrainSettings, _Updates
from vadcore.utils.errors import VadError

SLIM = 0.125  # width of the networks that tests run


def slim(seed: int = 0) -> FlowNetSD:
    torch.manual_seed(seed)
    return FlowNetSD(SLIM).eval()


def picks(count: int) -> np.ndarray:
    return np.stack([np.zeros(count), np.arange(count), np.ones(count)], axis=1).astype(int)


class TestPublishedNetwork:
    def test_parameter_count_matches_publication(self):
        def conv(before, after, side=3):
            return before * after * side**2 + after

        encoder = [(6, 64), (64, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 256), (256, 512)]
        encoder += [(512, 512), (512, 512), (512, 512), (512, 1024), (1024, 1024)]
        deconv = [(1024, 512), (1026, 256), (770, 128), (386, 64)]
        # joined: the encoder's channels, the deconvolution's and the coarser flow's two
        inter = [(512 + 512 + 2, 512), (512 + 256 + 2, 256), (256 + 128 + 2, 128), (128 + 64 + 2, 64)]
        predict = [(1024, 2), (512, 2), (256, 2), (128, 2), (64, 2)]
        count = sum(conv(*c) for c in encoder + inter + predict) + sum(conv(*c, 4) for c in deconv) + 4 * conv(2, 2, 4)
        with torch.device("meta"):
            net = FlowNetSD()
        assert sum(p.numel() for p in net.parameters()) == count == 45_371_666  # the figure of the published port

    def test_module_names_match_publication(self):
        convs = ["conv0", "conv1", "conv1_1", "conv2", "conv2_1", "conv3", "conv3_1", "conv4", "conv4_1", "conv5"]
        convs += ["conv5_1", "conv6", "conv6_1"]
        layers = [f"{name}.0" for name in convs]
        layers += [f"{kind}{n}.0" for kind in ("deconv", "inter_conv") for n in (5, 4, 3, 2)]
        layers += [f"predict_flow{n}" for n in (6, 5, 4, 3, 2)]
        layers += [f"upsampled_flow{n}_to_{n - 1}" for n in (6, 5, 4, 3)]
        expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
        assert set(slim().state_dict()) == expected

    def test_flow_at_five_scales_finest_first(self):
        flows = slim()(torch.rand(2, 3, 64, 128), torch.rand(2, 3, 64, 128))
        assert [flow.shape for flow in flows] == [(2, 2, 64 // s, 128 // s) for s in (4, 8, 16, 32, 64)]

    def test_pair_brightness_does_not_matter(self):
        """The network subtracts the mean of each channel over both pictures."""
        net, first, second = slim(), torch.rand(1, 3, 64, 64) / 2, torch.rand(1, 3, 64, 64) / 2
        offset = torch.tensor([0.1, 0.3, 0.5]).view(3, 1, 1)
        torch.testing.assert_close(net(first, second)[0], net(first + offset, second + offset)[0], atol=1e-5, rtol=1e-4)

    def test_layer_order_matches_publication(self):
        """The finest flow, computed step by step from the layers."""
        net, pair = slim(), torch.rand(1, 6, 64, 64)
        mean = (pair[:, :3].mean((2, 3), keepdim=True) + pair[:, 3:].mean((2, 3), keepdim=True)) / 2
        seen = {}
        x = net.conv0(pair - torch.cat((mean, mean), 1))
        for n in range(1, 7):
            x = getattr(net, f"conv{n}_1")(getattr(net, f"conv{n}")(x))
            seen[n] = x
        flow = net.predict_flow6(x)
        for n in (5, 4, 3, 2):
            up = getattr(net, f"upsampled_flow{n + 1}_to_{n}")(flow)
            x = torch.cat((seen[n], getattr(net, f"deconv{n}")(x), up), 1)
            flow = getattr(net, f"predict_flow{n}")(getattr(net, f"inter_conv{n}")(x))
        torch.testing.assert_close(net(pair[:, :3], pair[:, 3:])[0], flow)


class Constant(torch.nn.Module):
    """A network that returns a constant flow: 0.1 x 20 px to the right, 0.2 x 20 px down."""

    def forward(self, first, second):
        self.given = first.shape
        flow = torch.tensor([0.1, 0.2]).view(1, 2, 1, 1)
        return (flow.expand(len(first), 2, first.shape[2] // 4, first.shape[3] // 4),)


class TestFlowBetween:
    @pytest.mark.parametrize(
        ("size", "inner"), [((64, 128), (64, 128)), ((100, 150), (128, 192)), ((20, 70), (64, 128))]
    )
    def test_flow_in_pixels_of_any_input_size(self, size, inner):
        net = Constant()
        flow = flow_between(net, torch.rand(2, 1, *size), torch.rand(2, 1, *size))
        assert net.given == (2, 3, *inner)
        assert flow.shape == (2, 2, *size)
        # 2 px right and 4 px down of the enlarged picture
        torch.testing.assert_close(flow[:, 0], torch.full((2, *size), 2.0 * size[1] / inner[1]))
        torch.testing.assert_close(flow[:, 1], torch.full((2, *size), 4.0 * size[0] / inner[0]))

    def test_network_input_can_be_enlarged(self):
        net = Constant()
        flow = flow_between(net, torch.rand(2, 1, 32, 64), torch.rand(2, 1, 32, 64), enlarge=(90 / 32, 4))
        assert net.given == (2, 3, 128, 256)  # 4 times as high, 4 times as wide
        torch.testing.assert_close(flow, torch.tensor([0.5, 1.0]).view(1, 2, 1, 1).expand(2, 2, 32, 64))

    def test_grey_equals_three_equal_channels(self):
        net, first, second = slim(), torch.rand(1, 1, 64, 64), torch.rand(1, 1, 64, 64)
        three = flow_between(net, first.repeat(1, 3, 1, 1), second.repeat(1, 3, 1, 1))
        torch.testing.assert_close(flow_between(net, first, second), three)

    def test_gradient_reaches_second_picture_only(self):
        net = slim().requires_grad_(False)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        second = torch.rand(1, 1, 70, 90, requires_grad=True)
        flow_between(net, torch.rand(1, 1, 70, 90), second).abs().sum().backward()
        assert second.grad.isfinite().all()
        assert second.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in net.parameters())
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


class TestWeightFiles:
    @pytest.mark.parametrize("alone", [False, True])
    def test_published_and_plain_weights_are_loaded(self, tmp_path, monkeypatch, alone):
        monkeypatch.setattr("vadcore.flow.flownet.PUBLISHED_WIDTH", SLIM)
        net = slim()
        path = tmp_path / "FlowNet2-SD_checkpoint.pth.tar"
        torch.save(net.state_dict() if alone else {"state_dict": net.state_dict()}, path)
        loaded = load_flownet(path)
        assert all(torch.equal(value, net.state_dict()[key]) for key, value in loaded.state_dict().items())
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        assert not loaded.training

    def test_safetensors_file_stores_width(self, tmp_path):
        net = slim()
        save_flownet(net, tmp_path / "f.safetensors", {"iterations": 5})
        loaded = load_flownet(tmp_path / "f.safetensors")
        assert loaded.width == SLIM
        pair = torch.rand(2, 1, 3, 64, 64)
        # stored in half precision: 11 bits of each weight
        torch.testing.assert_close(flow_between(loaded, *pair), flow_between(net, *pair), rtol=0.02, atol=0.002)

    def test_wrong_files_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("vadcore.flow.flownet.PUBLISHED_WIDTH", 2 * SLIM)
        (tmp_path / "noise.pth.tar").write_bytes(b"not weights")
        (tmp_path / "noise.safetensors").write_bytes(b"not weights")
        save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
        torch.save({"state_dict": slim().state_dict()}, tmp_path / "slim.pth")
        torch.save([1, 2], tmp_path / "list.pth")
        torch.save({"state_dict": {}, "extra": Fraction(1, 2)}, tmp_path / "code.pth")
        expected = {
            "absent.pth": "weights",
            "noise.pth.tar": "weights_only=False",
            "noise.safetensors": "safetensors",
            "other.safetensors": "flownet",
            "slim.pth": rf"width {2 * SLIM}",
            "list.pth": "state_dict",
            "code.pth": "weights_only=False",
        }
        for name, words in expected.items():
            with pytest.raises(VadError, match=words) as caught:
                load_flownet(tmp_path / name)
            assert str(tmp_path / name) in str(caught.value)
            assert "\n" not in str(caught.value)


class TestLoss:
    def test_weighted_sum_of_end_point_errors(self):
        """A flow of (12, 16) px has length 1 in units of 20 px, so zero flow has an error of 1 for each pixel.

        The scales of 64 x 128 have 512, 128, 32, 8 and 2 pixels: 0.005 x 512 + 0.01 x 128 + 0.02 x 32 + 0.08 x 8 + 0.32 x 2.
        """
        target = torch.tensor([12.0, 16.0]).view(1, 2, 1, 1).expand(3, 2, 64, 128)
        zero = tuple(torch.zeros(3, 2, 64 // s, 128 // s) for s in (4, 8, 16, 32, 64))
        assert multiscale_loss(zero, target).item() == pytest.approx(2.56 + 1.28 + 0.64 + 0.64 + 0.64, rel=1e-5)

    def test_targets_are_averaged_to_each_scale(self):
        """Each quarter-resolution pixel has flow 40 px in its left half and 0 in its right: the average is (20, 0)."""
        target = torch.zeros(1, 2, 64, 64)
        target[:, 0] = torch.tensor([40.0, 40.0, 0.0, 0.0]).repeat(16)
        right = [torch.zeros(1, 2, 64 // s, 64 // s) for s in (4, 8, 16, 32, 64)]
        for flow in right:
            flow[:, 0] = 1.0
        assert multiscale_loss(tuple(right), target).item() == pytest.approx(0, abs=1e-6)
        right[4] = right[4] - 0.5  # 0.5 off in both directions, on one pixel
        assert multiscale_loss(tuple(right), target).item() == pytest.approx(0.32 * 0.5 * 2**0.5)

    def test_exact_flow_has_finite_gradient(self):
        flows = [torch.zeros(1, 2, 64 // s, 64 // s, requires_grad=True) for s in (4, 8, 16, 32, 64)]
        multiscale_loss(tuple(flows), torch.zeros(1, 2, 64, 64)).backward()
        assert all(flow.grad.isfinite().all() for flow in flows)


CONFIG = FlowTraining(width=SLIM, image_size=(64, 64), batch_size=2, iterations=6, learning_rate=1e-3)
SETTINGS = TrainSettings(check_every=3, val_windows=4, log_every=1, save_seconds=1e9)


def run(folder, out, settings=SETTINGS, callback=None):
    callback = callback or Callback(say=lambda line: None, progress=False)
    return learn_flow(CONFIG, settings, CheckpointFolder(folder, "flownet-1"), out, callback=callback)


@pytest.mark.usefixtures("few_textures")
class TestTraining:
    def test_overfits_a_few_pairs(self):
        torch.manual_seed(0)
        learner = FlowLearner(CONFIG.model_copy(update={"iterations": 1000, "learning_rate": 2e-3}))
        (phase,) = learner.phases()
        batch = GeneratedPairs(PairGenerator((64, 64), seed=1, still=0.0), 2).batch(picks(2))
        update = _Updates(phase, processes=1)
        before = phase.val(batch).item()
        losses = [phase.step(batch, update)["loss"].item() for _ in range(40)]
        assert losses[-1] < losses[0] / 3
        assert phase.val(batch).item() < before / 2

    def test_resumes_to_the_same_weights(self, tmp_path):
        class Stopped(Exception):
            pass

        def stop(phase, iteration, values):
            if iteration == 5:
                raise Stopped

        straight = run(tmp_path / "a", tmp_path / "a.safetensors")
        with pytest.raises(Stopped):
            run(tmp_path / "b", tmp_path / "b.safetensors", callback=Callback(metrics=stop, say=print, progress=False))
        assert not (tmp_path / "b.safetensors").exists()
        said = []
        resumed = run(tmp_path / "b", tmp_path / "b.safetensors", callback=Callback(say=said.append, progress=False))
        assert "at iteration 3 of phase 1" in said[0]
        assert [row["loss"] for row in resumed.history] == [row["loss"] for row in straight.history]
        first, second = (load_flownet(tmp_path / f"{n}.safetensors").state_dict() for n in "ab")
        assert all(torch.equal(first[key], second[key]) for key in first)

    def test_check_points_of_held_out_pairs(self, tmp_path):
        shown = []
        callback = Callback(picture=shown.append, say=lambda line: None, progress=False)
        result = run(tmp_path, tmp_path / "f.safetensors", callback=callback)
        measured = [row["val"] for row in result.history if "val" in row]
        assert len(measured) == 2
        assert result.val_loss == min(measured)
        assert [path.name for path in shown] == ["000003.png", "000006.png"]
        learner = FlowLearner(CONFIG)
        learner.net = load_flownet(tmp_path / "f.safetensors")
        unseen = GeneratedPairs(PairGenerator((64, 64), HELD_OUT_SEED), 4).batch(picks(4))
        assert learner.predict_step(unseen).measures["epe"].mean().item() == pytest.approx(result.val_loss, rel=1e-4)

    def test_impossible_sizes_are_refused(self):
        with pytest.raises(ValueError, match=r"multiples of 64.*\[128, 192\]"):
            FlowTraining(image_size=(100, 200))
