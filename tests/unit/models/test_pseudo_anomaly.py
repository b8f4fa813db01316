import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.helpers.training import ALWAYS, SETTINGS, Killed, run, same
from tests.unit.models.pseudo.conftest import TALL, Clips, street
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipId, ClipStore
from vadcore.data.windows import Batch, Segment
from vadcore.evaluation.inference import score_clip
from vadcore.models import create_model, model_config
from vadcore.models.pseudo_anomaly import by_region

SMALL = {"crop": (48, 64), "object_height": TALL, "conv": (16, 32, 32), "batch_size": 8, "learning_rate": 3e-3}


def build(**changes):
    torch.manual_seed(0)
    return create_model("pseudo_anomaly", {**SMALL, **changes})


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Training and held-out footage of walking boxes."""
    store = ClipStore(tmp_path_factory.mktemp("footage") / "frames.zarr", "frames", write=True)
    segments = []
    for number in range(3):
        clip = ClipId("train", f"{number:02d}")
        lanes = ((8 + 6 * number, 5.0), (50, 25.0 - 5 * number))
        with store.writer(clip) as writer:
            frames = street(0, objects=lanes, speed=0.8)
            writer.append(frames)
            writer.update({"fps": 10.0, "source_sha256": str(number), "extraction": "", "truth": ""})
        segments.append(Segment(clip, 0, len(frames)))
    return tuple(ClipLoader.for_model(build(), store, part, None) for part in (segments[:2], segments[2:]))


def test_pictures_are_resized_to_the_height_of_objects(split):
    model = build(object_height=TALL / 2)
    model._pasted(split[0], torch.float32)
    assert 0.4 < float(model.scale) < 0.6
    height, width = model(torch.rand(2, 8, 1, 80, 120), torch.rand(2, 1, 80, 120)).shape[2:]
    assert abs(height - 10) <= 1
    assert abs(width - 15) <= 1


def test_map_is_a_quarter_of_the_picture():
    assert build()(torch.rand(2, 8, 1, 80, 120), torch.rand(2, 1, 80, 120)).shape == (2, 8, 20, 30)


@pytest.mark.parametrize("channels", [1, 3])
def test_only_the_difference_from_the_background_is_seen(channels):
    model = build(color="rgb" if channels == 3 else "grey").eval()
    frames, background = torch.rand(1, 8, channels, 40, 60), torch.rand(1, channels, 40, 60)
    shift = torch.rand(1, channels, 40, 60)
    torch.testing.assert_close(
        model(frames, background, background),
        model(frames + shift[:, None], background + shift, background + shift),
        atol=1e-3,
        rtol=1e-3,
    )


def test_part_of_a_picture_gives_the_same_map_where_its_rows_are_known():
    model = build().eval()
    frames, background = torch.rand(1, 8, 1, 160, 60), torch.rand(1, 1, 160, 60)
    whole = model.network[0](model._seen(frames, background))
    part = model.network[0](
        model._seen(frames[..., 80:, :], background[..., 80:, :], view=torch.tensor([[0.5, 1.0, 0.0, 1.0]]))
    )
    torch.testing.assert_close(whole[:, :, 42:], part[:, :, 2:], atol=2e-2, rtol=0)


def test_every_second_frame_is_seen():
    model = build(every=2).eval()
    assert model.windows.length == 15
    assert model.windows.judged == tuple(range(0, 15, 2))
    assert model.windows.step == 1
    frames = torch.rand(1, 15, 1, 40, 60)
    other = frames.clone()
    other[:, 1::2] = 0
    background = torch.zeros(1, 1, 40, 60)
    batches = (Batch(x, torch.zeros(1), torch.zeros(1, 15), background=background) for x in (frames, other))
    judged = [model.predict_step(batch).measures["region"] for batch in batches]
    assert torch.equal(*judged)


def test_region_has_the_mean_of_its_highest_places():
    logits = torch.full((1, 10, 13), -7.0)
    logits[0, 3:5, 3:5] = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    logits[0, 6, 7:9] = 5.0
    logits[0, 8, 4:8] = 9.0  # at the border
    maps = by_region(logits, places=3)[0]
    assert (maps[3:5, 3:5] == 2).all()
    assert maps[6, 7:9].tolist() == pytest.approx([(5 + 5 - 2) / 3] * 2)  # one place is missing
    assert (maps[8, 4:8] == -2).all()
    assert (maps == -7).sum() == 130 - 10


def test_score_is_that_of_the_highest_region():
    model = build(places=3).eval()
    frames = torch.rand(2, 8, 1, 40, 60)
    with torch.inference_mode():
        judged = model.predict_step(
            Batch(frames, torch.zeros(2), torch.zeros(2, 8), background=torch.rand(2, 1, 40, 60))
        )
    torch.testing.assert_close(judged.measures["region"], judged.maps.flatten(2).amax(-1))
    assert (judged.measures["max"] >= judged.measures["region"]).all()


def test_trained_network_finds_a_fast_object_and_outlines_it(split, tmp_path):
    model = build(iterations=150)
    settings = SETTINGS.__class__(seed=1, check_every=150, val_windows=8)
    run(model, split, tmp_path, settings)
    frames = np.concatenate(
        [street(0, objects=((30, 5.0),), speed=0.8)[:30], street(0, objects=((30, 10.0),), speed=4)[:25]]
    )
    store = ClipStore(tmp_path / "test.zarr", "frames", write=True)
    with store.writer(ClipId("test", "a")) as writer:
        writer.append(frames)
        writer.update({"fps": 10.0, "source_sha256": "", "extraction": "", "truth": ""})
    footage = ClipLoader.for_model(model, store, [Segment(ClipId("test", "a"), 0, len(frames))], None)
    judged = score_clip(model, footage, 0)
    normal, fast = judged.measures["region"][4:26], judged.measures["region"][34:50]
    assert np.median(fast) > normal.max()
    row, column = np.argwhere(judged.maps[40] == judged.maps[40].max()).mean(0)  # centre of the highest region
    scale = 80 / judged.maps.shape[1]
    assert 30 <= row * scale <= 50
    assert abs(column * scale - (10 + 10 * 4 + 4)) < 10


def test_resume_after_kill_is_exact(split, tmp_path):
    model = build(iterations=6)
    run(model, split, tmp_path / "a")

    def kill(phase, iteration, values):
        if iteration == 3:
            raise Killed

    settings = SETTINGS.__class__(**{**vars(SETTINGS), "save_seconds": ALWAYS})
    with pytest.raises(Killed):
        run(build(iterations=6), split, tmp_path / "b", settings, metrics=kill)
    resumed, said = build(iterations=6), []
    run(resumed, split, tmp_path / "b", settings, say=said.append)
    assert "at iteration 2 of phase 1" in said[0]
    assert same(resumed, model)


def test_check_points_show_pasted_windows(split, tmp_path):
    drawn = []
    run(build(iterations=4), split, tmp_path, picture=drawn.append)
    assert [path.name for path in drawn] == ["segmentation-000004.png"]


def test_alterations_need_a_weight():
    with pytest.raises(ValidationError, match="all weights are 0"):
        model_config("pseudo_anomaly", {"alterations": {"fast": 0}})
    with pytest.raises(ValidationError):
        model_config("pseudo_anomaly", {"alterations": {"loud": 1}})


def test_clips_without_motion_can_be_trained_on(tmp_path):
    still = Clips(street(0, objects=()))
    model = build()
    source = model._pasted(still, torch.float32)
    made = source.make(np.array([0, 0, 1, 0]))
    assert all(np.isfinite(part).all() for part in made)
