"""Optical flow estimators: their interface, their configuration and their end-point errors."""

import builtins
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.data import data_dir
from vadcore.config import Params
from vadcore.data.formats import prepare
from vadcore.data.formats.street import StreetConfig
from vadcore.flow.epe import (
    FlowSet,
    chairs_pairs,
    end_point_error,
    generated_pairs,
    read_flo,
    street_pairs,
    table,
)
from vadcore.flow.estimators import create_estimator, identity
from vadcore.flow.flownet import FlowNetSD, flow_between, load_flownet, save_flownet
from vadcore.utils.errors import VadError


def shifted(dx: float, dy: float, channels: int = 1) -> np.ndarray:
    """A textured picture and a copy shifted by (dx, dy), uint8 ``[2, 1, 64, 96, C]``."""
    noise = np.random.default_rng(0).normal(128, 60, (100, 140)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = (texture - texture.mean()) * (50 / texture.std()) + 128
    moved = cv2.warpAffine(texture, np.float32([[1, 0, dx], [0, 1, dy]]), (140, 100))
    pair = np.stack([texture, moved])[:, None, 18:82, 22:118, None].repeat(channels, axis=4)
    return np.clip(pair, 0, 255).astype(np.uint8)


@pytest.fixture
def weights(tmp_path):
    """A function that writes untrained FlowNet weights and returns their path."""

    def write(name: str = "f.safetensors", seed: int = 0) -> str:
        torch.manual_seed(seed)
        save_flownet(FlowNetSD(0.125), tmp_path / name)
        return str(tmp_path / name)

    return write


class TestEstimators:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("motion", [(1.0, 0.0), (0.0, -1.5), (2.5, 2.0)])
    @pytest.mark.parametrize("name", ["dis", "farneback"])
    def test_known_motion_is_found(self, name, motion, channels):
        flow = create_estimator(name)(*shifted(*motion, channels))
        assert flow.shape == (1, 2, 64, 96)
        assert flow.dtype == np.float32
        assert np.abs(flow[..., 10:-10, 10:-10] - np.reshape(motion, (2, 1, 1))).mean() < 0.1

    def test_flownet_estimator_matches_its_network(self, weights):
        first, second = np.random.default_rng(0).integers(0, 256, (2, 11, 50, 70, 1), dtype=np.uint8)
        path = weights()
        flow = create_estimator("flownet", weights=path)(first, second)
        net = load_flownet(path)
        with torch.no_grad():
            pair = [torch.from_numpy(p[10:]).permute(0, 3, 1, 2) / 255 for p in (first, second)]
            expected = flow_between(net, *pair).numpy()
            larger = flow_between(net, *pair, enlarge=(2, 2)).numpy()
        assert flow.shape == (11, 2, 50, 70)  # more pairs than one batch of the network
        assert np.abs(flow[10:] - expected).max() < 1e-4
        enlarged = create_estimator("flownet", weights=path, enlarge=(2, 2))(first, second)
        assert np.abs(enlarged[10:] - larger).max() < 1e-4
        assert np.abs(larger - expected).max() > 1e-2

    def test_changed_weights_file_is_reread(self, weights):
        pair = shifted(1, 0)
        first = create_estimator("flownet", weights=weights())(*pair)
        second = create_estimator("flownet", weights=weights("f.safetensors", seed=1))(*pair)
        assert not np.allclose(first, second)

    def test_unknown_estimator_lists_known_ones(self):
        with pytest.raises(VadError, match=r"pwc.*dis, farneback, flownet, raft"):
            create_estimator("pwc")

    @pytest.mark.parametrize("name", ["flownet", "raft"])
    def test_missing_weights_are_refused(self, name, tmp_path):
        with pytest.raises(VadError, match=r"optical_flow\.weights.*absent"):
            create_estimator(name, weights=str(tmp_path / "absent.pth"))

    def test_error_for_raft_without_torchvision(self, tmp_path, monkeypatch):
        real = builtins.__import__

        def hidden(name, *rest):
            if name.startswith("torchvision"):
                raise ImportError(name)
            return real(name, *rest)

        (tmp_path / "raft.pth").write_bytes(b"x")
        monkeypatch.setattr(builtins, "__import__", hidden)
        with pytest.raises(VadError, match=r"torchvision.*install"):
            create_estimator("raft", weights=str(tmp_path / "raft.pth"))

    def test_raft_matches_torchvision(self, tmp_path):
        pytest.importorskip("torchvision")
        from torchvision.models.optical_flow import raft_small

        torch.manual_seed(0)
        net = raft_small(weights=None).eval()
        torch.save(net.state_dict(), tmp_path / "raft.pth")
        first, second = np.random.default_rng(0).integers(0, 256, (2, 1, 128, 136, 3), dtype=np.uint8)
        flow = create_estimator("raft", weights=str(tmp_path / "raft.pth"))(first, second)
        with torch.no_grad():
            pair = [torch.from_numpy(p).permute(0, 3, 1, 2) / 127.5 - 1 for p in (first, second)]
            expected = net(*pair)[-1].numpy()
        assert np.abs(flow - expected).max() < 1e-3
        small = create_estimator("raft", weights=str(tmp_path / "raft.pth"))(first[:, :50, :60], second[:, :50, :60])
        assert small.shape == (1, 2, 50, 60)
        (tmp_path / "other.pth").write_bytes(b"x")
        with pytest.raises(VadError, match=r"other\.pth.*raft_small"):
            create_estimator("raft", weights=str(tmp_path / "other.pth"))


class TestIdentity:
    def test_identity_depends_on_name_and_options(self):
        assert identity("dis", {"preset": "fast"}) != identity("dis", {"preset": "medium"})
        assert identity("dis", {}) != identity("farneback", {})

    def test_identity_depends_on_weights_content(self, weights):
        first = identity("flownet", {"weights": weights("a.safetensors")})
        moved = identity("flownet", {"weights": weights("b.safetensors")})
        other = identity("flownet", {"weights": weights("c.safetensors", seed=1)})
        assert first == moved
        assert first != other


def params(section: dict) -> Params:
    street = {"dataset": {"street": {"format": "street"}}, "datasets": ["street"]}
    return Params(**street, models=["frame_diff"], model={"frame_diff": {}}, optical_flow=section)


class TestConfiguration:
    def test_default_estimator_is_dis(self):
        assert params({}).optical_flow.estimator == "dis"
        assert params({"preset": "fast"}).optical_flow.preset == "fast"

    @pytest.mark.parametrize(
        "section", [{"estimator": "dis"}, {"estimator": "farneback"}, {"estimator": "farneback", "winsize": 21}]
    )
    def test_section_creates_its_estimator(self, section):
        chosen = params(section).optical_flow
        estimate = create_estimator(chosen.estimator, **chosen.model_dump(exclude={"estimator", "size"}))
        assert estimate(*shifted(1, 0)).shape == (1, 2, 64, 96)

    def test_option_of_another_estimator_is_refused(self):
        with pytest.raises(ValueError, match="preset"):
            params({"estimator": "farneback", "preset": "fast"})

    def test_networks_need_weights(self):
        with pytest.raises(ValueError, match="weights"):
            params({"estimator": "flownet"})

    def test_unknown_estimator_is_refused(self):
        with pytest.raises(ValueError, match=r"dis.*farneback.*flownet.*raft"):
            params({"estimator": "pwc"})


class TestEndPointError:
    def test_mean_length_of_the_difference(self):
        true = np.zeros((1, 2, 2, 2), np.float32)
        found = true.copy()
        found[0, :, 0, 0] = 3, 4  # 5 px off in one of four pixels
        assert end_point_error(found, true) == pytest.approx(5 / 4)
        valid = np.zeros((1, 2, 2), bool)
        valid[0, 0] = True
        assert end_point_error(found, true, valid) == pytest.approx(5 / 2)

    def test_table_of_end_point_errors(self):
        pair = shifted(3, 4)
        flow = np.broadcast_to(np.float32([3, 4]).reshape(1, 2, 1, 1), (1, 2, 64, 96))
        rows = table({"exact": lambda first, second: flow}, [FlowSet("shift", *pair, flow)])
        assert [(row["estimator"], row["set"]) for row in rows] == [("no motion", "shift"), ("exact", "shift")]
        assert [row["epe"] for row in rows] == pytest.approx([5, 0])
        assert rows[1]["fps"] > 0

    @pytest.mark.parametrize(
        ("number", "dis", "farneback", "zero"), [(1, 2.70, 4.40, 4.31), (2, 0.64, 0.73, 2.11), (3, 3.02, 4.14, 4.77)]
    )
    def test_opencv_errors_on_real_pairs(self, number, dis, farneback, zero):
        """DIS at its medium preset; Farneback with polynomials of 7 pixels."""
        pairs = chairs_pairs(data_dir("flyingchairs"), [number])
        estimators = {
            "dis": create_estimator("dis"),
            "farneback": create_estimator("farneback", poly_n=7, poly_sigma=1.5),
        }
        errors = [row["epe"] for row in table(estimators, [pairs])]
        assert errors == pytest.approx([zero, dis, farneback], abs=0.02)

    def test_dis_beats_zero_flow_on_generated_pairs(self, few_textures):
        none, dis = table({"dis": create_estimator("dis")}, [generated_pairs((128, 192), 12)])
        assert dis["epe"] < 0.7 * none["epe"]

    def test_street_pairs_use_true_flow(self, tmp_path):
        config = StreetConfig(format="street", train_clips=1, train_frames=2, test_clips=1, test_frames=30)
        prepare(config, tmp_path, say=lambda line: None)
        whole, moving = street_pairs(config, tmp_path, every=10)
        assert whole.first.shape == whole.second.shape == (3, 128, 192, 1)
        assert whole.flow.shape == (3, 2, 128, 192)
        assert 0 < moving.valid.mean() < 0.3
        none, found = table({"dis": create_estimator("dis")}, [moving])
        assert none["epe"] == pytest.approx(np.linalg.norm(moving.flow, axis=1)[moving.valid].mean())
        assert found["epe"] < 0.8 * none["epe"]


def write_flo(path: Path, flow: np.ndarray) -> None:
    cv2.writeOpticalFlow(str(path), np.ascontiguousarray(flow.transpose(1, 2, 0)))


class TestFloFiles:
    def test_reads_files_of_opencv(self, tmp_path):
        flow = np.random.default_rng(0).normal(0, 9, (2, 5, 7)).astype(np.float32)
        flow[:, 2, 3] = 1e10  # stands for unknown flow
        write_flo(tmp_path / "a.flo", flow)
        flow[:, 2, 3] = np.nan
        assert np.array_equal(read_flo(tmp_path / "a.flo"), flow, equal_nan=True)

    def test_wrong_files_are_refused(self, tmp_path):
        write_flo(tmp_path / "good.flo", np.zeros((2, 5, 7), np.float32))
        (tmp_path / "short.flo").write_bytes((tmp_path / "good.flo").read_bytes()[:-8])
        (tmp_path / "other.flo").write_bytes(b"P6 something else")
        expected = ("absent.flo", "short.flo", "other.flo")
        for name in expected:
            with pytest.raises(VadError, match=name):
                read_flo(tmp_path / name)

    def test_missing_pairs_are_refused(self, tmp_path):
        with pytest.raises(VadError, match=r"\*_flow\.flo"):
            chairs_pairs(tmp_path)
        write_flo(tmp_path / "00001_flow.flo", np.zeros((2, 5, 7), np.float32))
        with pytest.raises(VadError, match=r"00001_img1\.ppm"):
            chairs_pairs(tmp_path)
