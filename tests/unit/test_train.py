"""Training: resumes exactly, selects on held-out footage, runs any phases, stops at a loss that is not finite."""

import time

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.footage import make_store
from vadcore.checkpoint import CheckpointFolder
from vadcore.errors import VadError
from vadcore.footage import Footage
from vadcore.models import create_model
from vadcore.models.base import Batch, Judged, Model, ModelConfig, Phase
from vadcore.render import decode_animation
from vadcore.train import TrainSettings, Watcher, spread, train
from vadcore.windows import Segment, Windows

SETTINGS = TrainSettings(seed=5, check_every=4, held_out_windows=6, log_every=3, save_seconds=1e9)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def split(tmp_path):
    store = make_store(tmp_path)
    whole = [Segment(clip, 0, store.length(clip)) for clip in store.clips("train")]
    return Footage(store, whole[:2]), Footage(store, whole[2:])


def small(iterations: int = 10, **changes) -> Model:
    torch.manual_seed(0)
    section = {
        "subtract_mean": False,
        "image_size": (24, 32),
        "frames": 4,
        "conv": (8, 8),
        "lstm": (8,),
        "batch_size": 4,
        "learning_rate": 1e-3,
    }
    return create_model("convlstm_ae", {**section, "iterations": iterations, **changes})


def run(model, split, folder, settings=SETTINGS, **watching):
    return train(
        model, *split, settings, CheckpointFolder(folder, "train-x"), Watcher(say=lambda text: None, **watching)
    )


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def without_seconds(result):
    passing = ("seconds", "step_seconds", "peak_memory_mb", "resumed_from", "found_finished")
    return {key: value for key, value in vars(result).items() if key not in passing}


def test_the_same_seed_gives_the_same_weights(split, tmp_path):
    first, second = small(), small()
    run(first, split, tmp_path / "a")
    run(second, split, tmp_path / "b")
    assert same(first, second)


@pytest.mark.parametrize("killed_at", [3, 6, 9])  # before the first check point, between, at a log
def test_a_killed_training_continues_as_if_it_had_not_been_stopped(split, tmp_path, killed_at):
    undisturbed = small()
    expected = run(undisturbed, split, tmp_path / "a")

    def kill(phase, iteration, values):
        if iteration == killed_at:
            raise Killed

    often = TrainSettings(**{**vars(SETTINGS), "save_seconds": 0.0})  # a checkpoint after every iteration
    with pytest.raises(Killed):
        run(small(), split, tmp_path / "b", often, metrics=kill)
    resumed = small()
    result = run(resumed, split, tmp_path / "b")
    assert result.resumed_from == killed_at - 1
    assert same(resumed, undisturbed)
    assert without_seconds(result) == without_seconds(expected)


def test_a_finished_training_is_not_repeated_but_told_again(split, tmp_path):
    """Who asks for it again, a new MLflow run, gets the curves and the pictures too."""
    first, second = small(), small()
    told: list[list] = [[], []]
    pictures: list[list] = [[], []]
    for number, model in enumerate((first, second)):
        result = run(
            model,
            split,
            tmp_path,
            metrics=lambda phase, step, values, n=number: told[n].append((step, values)),
            picture=pictures[number].append,
        )
    assert result.found_finished
    assert same(first, second)
    assert result.peak_memory_mb > 0

    def curves(rows):
        return {(step, key): value for step, values in rows for key, value in values.items()}

    assert curves(told[1]) == curves(told[0])
    assert sorted(pictures[1]) == sorted(pictures[0])


def test_a_checkpoint_under_another_key_is_never_taken(tmp_path):
    CheckpointFolder(tmp_path, "train-old").save({"model": 1})
    fresh = CheckpointFolder(tmp_path, "train-new")
    assert fresh.load() is None
    assert not (tmp_path / "train-old").exists()


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
    folder = CheckpointFolder(tmp_path, "train-x")
    folder.file.write_bytes(b"half a file")
    with pytest.raises(VadError, match=r"state\.pt: not a readable checkpoint; delete it"):
        folder.load()


def test_a_checkpoint_cannot_run_code(tmp_path):
    folder = CheckpointFolder(tmp_path, "train-x")
    torch.save({"model": Killed()}, folder.file)
    with pytest.raises(VadError, match="not a readable checkpoint"):
        folder.load()


def test_the_weights_with_the_smallest_held_out_loss_are_kept(split, tmp_path):
    model = small(iterations=12, learning_rate=0.3)  # far too fast: it gets worse
    result = run(model, split, tmp_path)
    losses = {row["iteration"]: row["held_out"] for row in result.history if "held_out" in row}
    assert list(losses) == [4, 8, 12]
    assert result.held_out_loss == min(losses.values())
    assert result.best_iteration == min(losses, key=losses.get)
    phase = model.phases()[0]
    picks = spread(split[1].lengths, phase.windows, 6)
    with torch.no_grad():
        again = torch.stack([phase.held_out(split[1].batch(picks[[n]], 4)) for n in range(len(picks))]).mean()
    assert again.item() == pytest.approx(result.held_out_loss, rel=1e-5)


def test_a_strip_and_an_animation_are_made_at_every_check_point(split, tmp_path):
    drawn = []
    run(small(), split, tmp_path, picture=drawn.append)
    stems = ["autoencoder-000004", "autoencoder-000008", "autoencoder-000010"]
    assert [path.name for path in drawn] == [f"{stem}.{kind}" for stem in stems for kind in ("png", "webp")]
    assert cv2.imread(str(drawn[0])).shape == (3 * (3 * 24 + 4), 4 * 34 - 2, 3)  # three windows of four frames, 24 x 32
    for path in drawn[1::2]:
        film = decode_animation(path.read_bytes())
        assert len(film) == 4
        # enlarged six times, the least whole factor that makes 24 pixels 128; three windows, input above output
        assert film[0].shape == (2 * 144 + 2, 3 * 192 + 4, 3)


def test_pictures_show_the_same_held_out_windows_at_every_check_point(split, tmp_path):
    drawn = []
    run(small(), split, tmp_path, picture=drawn.append)
    first, last = (cv2.imread(str(path)) for path in (drawn[0], drawn[-2]))
    assert (first[:24] == last[:24]).all()  # the inputs of the first window
    assert (first[26:50] != last[26:50]).any()  # what the model makes of them
    true = split[1].batch(spread(split[1].lengths, Windows(4), 6)[[0]], 4).frames[0, :, 0]
    assert (first[:24, :32, 0] == np.round(true[0].numpy() * 255)).all()


class Shows(Model):
    """Shows the second frame of a window, darker by a learned share, at what scoring judges: positions 1 and 2."""

    windows = Windows(3, judged=(1, 2))
    score = "error"

    def __init__(self, selects: bool = True):
        super().__init__(ModelConfig())
        self.selects = selects
        self.kept = nn.Parameter(torch.tensor(0.5))
        self.judged_batches = 0

    def phases(self):
        sgd = {"sgd": torch.optim.SGD([self.kept], 0.1)}
        held_out = self._loss if self.selects else None
        return [Phase("learn", 8, self.windows, 4, self._step, sgd, held_out=held_out)]

    def _loss(self, batch):
        return (self.kept - 1).square()

    def _step(self, batch, update):
        loss = self._loss(batch)
        update("sgd", loss)
        return {"loss": loss.detach()}

    def judge(self, batch):
        self.judged_batches += 1
        frames = batch.frames[:, 1:3]
        return Judged({"error": frames.mean((2, 3, 4))}, frames[:, :, 0], lambda: frames * self.kept)


def test_quality_is_measured_at_every_check_point_on_the_judged_frames_of_held_out_windows(split, tmp_path):
    model, seen = Shows(), []
    result = run(model, split, tmp_path, metrics=lambda phase, iteration, values: seen.append((iteration, values)))
    rows = {row["iteration"]: row for row in result.history if "psnr" in row}
    assert list(rows) == [4, 8]
    picks = spread(split[1].lengths, model.windows, SETTINGS.held_out_windows)
    frames = split[1].batch(picks, 3).frames[:, 1:3].flatten(0, 1)  # [2 * 6, 1, H, W]
    # gradient descent on (k - 1)^2 at rate 0.1: 1 - k shrinks by 1 - 2 * 0.1 = 0.8 a step, from 0.5
    for iteration, row in rows.items():
        lost = 0.5 * 0.8**iteration
        expected = (-10 * (frames * lost).square().mean((1, 2, 3)).log10()).mean().item()
        assert row["psnr"] == pytest.approx(expected, abs=1e-3)
        assert row["sharpness"] == pytest.approx(1 - lost, abs=1e-5)
        assert 0 < row["ssim"] < 1
        reported = {key: row[key] for key in ("held_out", "psnr", "ssim", "sharpness")}
        assert (iteration, reported) in seen
    assert rows[8]["ssim"] > rows[4]["ssim"]
    assert result.quality == {key: rows[8][key] for key in ("psnr", "ssim", "sharpness")}


def test_held_out_windows_are_judged_once_a_check_point(split, tmp_path):
    model = Shows()
    run(model, split, tmp_path)
    assert model.judged_batches == 2 * 2  # two check points, six windows in batches of at most four


def test_quality_is_that_of_the_weights_that_were_kept(split, tmp_path):
    class Worsens(Shows):
        def phases(self):
            (phase,) = super().phases()
            phase.held_out = lambda batch: self.kept.detach()[None]  # grows while the picture gets better
            return [phase]

    result = run(Worsens(), split, tmp_path)
    first, last = (row for row in result.history if "psnr" in row)
    assert result.best_iteration == first["iteration"] == 4
    assert result.quality == {key: first[key] for key in ("psnr", "ssim", "sharpness")}
    assert result.quality["psnr"] < last["psnr"]


def test_quality_is_that_of_the_last_weights_where_nothing_is_selected(split, tmp_path):
    result = run(Shows(selects=False), split, tmp_path)
    assert result.best_iteration is None
    assert result.quality == {key: result.history[-1][key] for key in ("psnr", "ssim", "sharpness")}
    assert "held_out" not in result.history[-1]


def test_a_system_that_shows_nothing_has_neither_quality_nor_pictures(split, tmp_path):
    class Blind(Shows):
        def judge(self, batch):
            judged = super().judge(batch)
            return Judged(judged.measures, judged.maps)

    model = Blind()
    result = run(model, split, tmp_path, picture=lambda path: pytest.fail(f"made {path}"))
    assert not any("psnr" in row for row in result.history)
    assert result.quality == {}
    assert model.judged_batches == 2  # one batch a check point is enough to see that


def test_a_single_judged_frame_makes_a_strip_and_no_animation(split, tmp_path):
    class Predicts(Shows):
        windows = Windows(3, judged=(2,))

        def judge(self, batch):
            frames = batch.frames[:, 2:3]
            return Judged({"error": frames.mean((2, 3, 4))}, frames[:, :, 0], lambda: frames * self.kept)

    drawn = []
    run(Predicts(), split, tmp_path, picture=drawn.append)
    assert [path.name for path in drawn] == ["learn-000004.png", "learn-000008.png"]
    assert cv2.imread(str(drawn[0])).shape == (3 * 24 + 4, 3 * 34 - 2, 3)  # three windows beside one another


def test_check_points_count_as_training_time_but_not_as_time_of_steps(split, tmp_path):
    class Slow(Shows):
        def judge(self, batch):
            time.sleep(0.1)
            return super().judge(batch)

    result = run(Slow(), split, tmp_path)  # two check points of two batches: at least 0.4 s in them
    assert result.seconds - result.step_seconds > 0.4
    assert 0 < result.step_seconds < 0.4


def test_phases_that_learn_nothing_do_not_count_as_time_of_steps(split, tmp_path):
    class Gathering(Shows):
        def phases(self):
            return [Phase("gather", 4, self.windows, 2, self._gather), *super().phases()]

        def _gather(self, batch, update):
            time.sleep(0.1)
            return {"loss": batch.frames.mean()}

    result = run(Gathering(), split, tmp_path)
    assert result.seconds > 0.4 > result.step_seconds


def test_looking_at_the_check_points_does_not_change_the_training(split, tmp_path):
    seldom, often = small(), small()
    run(seldom, split, tmp_path / "a", TrainSettings(seed=5, check_every=10, held_out_windows=6))
    run(often, split, tmp_path / "b", TrainSettings(seed=5, check_every=1, held_out_windows=6))
    finest = {row["iteration"]: row["held_out"] for row in run(often, split, tmp_path / "b").history}
    last = run(seldom, split, tmp_path / "a").held_out_loss
    assert finest[10] == last


@pytest.mark.gpu
@pytest.mark.parametrize("cache", ["device", "ram", "stream"])
def test_training_on_a_gpu_gives_the_same_weights_from_every_cache(tmp_path, cache):
    store = make_store(tmp_path / "data")
    whole = [Segment(clip, 0, store.length(clip)) for clip in store.clips("train")]
    models = [small(), small()]
    for model, kept in zip(models, ("device", cache), strict=True):
        parts = [Footage(store, part, device="cuda", cache=kept) for part in (whole[:2], whole[2:])]
        settings = TrainSettings(**{**vars(SETTINGS), "dtype": torch.bfloat16})
        result = run(model, parts, tmp_path / kept / str(id(model)), settings)
        assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert same(*models)


class TwoPlayers(Model):
    """Two phases; the second has two optimizers that move in turn, and a scheduler."""

    windows = Windows(2)
    score = "error"

    def __init__(self):
        super().__init__(ModelConfig())
        self.start = nn.Parameter(torch.zeros(1))
        self.generator = nn.Parameter(torch.zeros(1))
        self.critic = nn.Parameter(torch.ones(1))
        self.begun: list[str] = []

    def phases(self):
        first = torch.optim.SGD([self.start], 0.1)
        generator, critic = torch.optim.SGD([self.generator], 0.1), torch.optim.Adam([self.critic], 0.01)
        return [
            Phase("warm", 3, self.windows, 2, self._warm, {"sgd": first}, begin=lambda: self.begun.append("warm")),
            Phase(
                "play",
                4,
                self.windows,
                2,
                self._play,
                {"generator": generator, "critic": critic},
                schedulers={"generator": torch.optim.lr_scheduler.StepLR(generator, 2, 0.1)},
                clip_norm={"critic": 1e-3},
                sampling="clips",
                begin=lambda: self.begun.append("play"),
            ),
        ]

    def _warm(self, batch: Batch, update):
        loss = (self.start - batch.frames.mean()).square().sum()
        update("sgd", loss)
        return {"loss": loss}

    def _play(self, batch: Batch, update):
        fooled = (self.generator * self.critic.detach() - self.start.detach() - 1).square().sum()
        update("generator", fooled)
        judged = (self.critic * self.generator.detach() - 0.5 * torch.rand(1)).square().sum()  # draws random numbers
        update("critic", judged)
        return {"loss": fooled, "critic": judged}

    def judge(self, batch):
        return Judged({"error": batch.frames.mean((1, 2, 3, 4))[:, None]}, batch.frames[:, :1, 0])


@pytest.mark.parametrize("killed_at", [("warm", 2), ("play", 1), ("play", 3)])
def test_phases_with_several_optimizers_and_schedulers_resume_exactly(split, tmp_path, killed_at):
    every = TrainSettings(seed=5, check_every=100, log_every=1, save_seconds=0.0)
    undisturbed = TwoPlayers()
    expected = run(undisturbed, split, tmp_path / "a", every)
    assert undisturbed.begun == ["warm", "play"]
    assert expected.iterations == 7

    def kill(phase, iteration, values):
        if (phase, iteration) == killed_at:
            raise Killed

    with pytest.raises(Killed):
        run(TwoPlayers(), split, tmp_path / "b", every, metrics=kill)
    resumed = TwoPlayers()
    result = run(resumed, split, tmp_path / "b", every)
    assert same(resumed, undisturbed)
    assert result.history == expected.history


def test_a_phase_without_optimizers_gathers_statistics(split, tmp_path):
    class Mean(TwoPlayers):
        def phases(self):
            return [Phase("mean", 5, self.windows, 2, self._gather)]

        def _gather(self, batch, update):
            with torch.no_grad():
                self.start += batch.frames.mean() / 5
            return {"loss": batch.frames.mean()}

    model = Mean()
    run(model, split, tmp_path)
    assert 0.2 < model.start.item() < 0.6
    assert not model.trained


def test_a_loss_that_is_not_finite_stops_the_training_and_is_not_saved(split, tmp_path):
    class Exploding(TwoPlayers):
        def phases(self):
            return [Phase("grow", 100, self.windows, 2, self._step, {"sgd": torch.optim.SGD([self.start], 1e3)})]

        def _step(self, batch, update):
            loss = (self.start - 1).square().sum()  # each step overshoots two thousand times as far
            update("sgd", loss)
            return {"loss": loss}

    every = TrainSettings(check_every=100, log_every=5, save_seconds=0.0)
    with pytest.raises(
        VadError, match=r"loss is (inf|nan) at iteration \d+ of phase grow; lower model\.\*\.learning_rate"
    ):
        run(Exploding(), split, tmp_path, every)
    state = CheckpointFolder(tmp_path, "train-x").load()
    assert state["model"]["start"].isfinite().all()


def test_a_held_out_loss_that_is_not_finite_stops_the_training(split, tmp_path):
    class Blind(TwoPlayers):
        def phases(self):
            sgd = {"sgd": torch.optim.SGD([self.start], 0.1)}
            return [Phase("warm", 3, self.windows, 2, self._warm, sgd, held_out=lambda batch: torch.tensor(torch.nan))]

    with pytest.raises(
        VadError, match=r"held-out loss is nan at iteration 3 of phase warm; lower model\.\*\.learning_rate"
    ):
        run(Blind(), split, tmp_path)


def test_what_a_phase_froze_stays_frozen_when_resumed(split, tmp_path):
    class Freezing(TwoPlayers):
        def phases(self):
            both = torch.optim.SGD([self.start, self.generator], 0.1)
            return [Phase("one", 6, self.windows, 2, self._step, {"sgd": both}, begin=self._freeze)]

        def _freeze(self):
            self.start.requires_grad_(False)

        def _step(self, batch, update):
            loss = (self.start + self.generator - batch.frames.mean()).square().sum()
            update("sgd", loss)
            return {"loss": loss}

    every = TrainSettings(check_every=100, log_every=1, save_seconds=0.0)
    undisturbed, resumed = Freezing(), Freezing()
    run(undisturbed, split, tmp_path / "a", every)

    def kill(phase, iteration, values):
        if iteration == 4:
            raise Killed

    with pytest.raises(Killed):
        run(Freezing(), split, tmp_path / "b", every, metrics=kill)
    run(resumed, split, tmp_path / "b", every)
    assert undisturbed.start.item() == 0.0
    assert same(resumed, undisturbed)


def test_training_on_wider_strides_alone_still_looks_at_neighbouring_held_out_frames(split, tmp_path):
    result = run(small(4, strides=(2, 3)), split, tmp_path)
    assert result.held_out_loss is not None
    assert (spread([20, 20], Windows(4, (2,)), 8)[:, 2] == 1).all()


def test_held_out_clips_shorter_than_a_window_are_refused_before_the_first_step(split, tmp_path):
    kept, held = split
    short = Footage(held.frames, [Segment(held.segments[0].clip, 0, 3)])
    with pytest.raises(VadError, match=r"train\.held_out: no held-out clip is as long as one window of 4 frames"):
        run(small(), (kept, short), tmp_path)
    assert not (tmp_path / "train-x" / "state.pt").exists()
