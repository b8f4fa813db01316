"""Training: exact resume, selection by validation loss, phases with several optimizers, non-finite losses."""

import pytest
import torch
from torch import nn

from tests.helpers.footage import make_store
from tests.helpers.training import ALWAYS, SETTINGS, Killed, Split, make_split, run, same, small
from vadcore.data.loader import ClipLoader
from vadcore.data.windows import Batch, Segment, Windows
from vadcore.models.base import Model, ModelConfig, Phase, Prediction
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.training.trainer import TrainSettings, spread
from vadcore.utils.errors import VadError


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    return make_split(tmp_path_factory.mktemp("footage"))


def without_seconds(result):
    passing = ("seconds", "step_seconds", "peak_memory_mb")
    return {key: value for key, value in vars(result).items() if key not in passing}


def test_same_seed_gives_same_weights(split, tmp_path):
    first, second = small(), small()
    run(first, split, tmp_path / "a")
    run(second, split, tmp_path / "b")
    assert same(first, second)


@pytest.fixture(scope="module")
def undisturbed(split, tmp_path_factory):
    """A trained model and the result of its training."""
    model = small()
    return model, run(model, split, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("killed_at", [3, 6, 9])  # before the first check point, between two, at a log
def test_resume_after_kill_is_exact(split, tmp_path, killed_at, undisturbed):
    model, expected = undisturbed

    def kill(phase, iteration, values):
        if iteration == killed_at:
            raise Killed

    often = TrainSettings(**{**vars(SETTINGS), "save_seconds": ALWAYS})
    with pytest.raises(Killed):
        run(small(), split, tmp_path / "b", often, metrics=kill)
    resumed, said = small(), []
    result = run(resumed, split, tmp_path / "b", say=said.append)
    assert f"at iteration {killed_at - 1} of phase 1" in said[0]
    assert same(resumed, model)
    assert without_seconds(result) == without_seconds(expected)


def test_finished_training_reports_again(split, tmp_path):
    """A repeated call, such as from a new MLflow run, reports the curves and pictures again."""
    first, second = small(), small()
    reported: list[list] = [[], []]
    pictures: list[list] = [[], []]
    said: list[str] = []
    for number, model in enumerate((first, second)):
        result = run(
            model,
            split,
            tmp_path,
            metrics=lambda phase, step, values, n=number: reported[n].append((step, values)),
            picture=pictures[number].append,
            say=said.append,
        )
    assert said[-1].startswith("already trained")
    assert same(first, second)
    assert result.peak_memory_mb > 0

    def curves(rows):
        return {(step, key): value for step, values in rows for key, value in values.items()}

    assert curves(reported[1]) == curves(reported[0])
    assert sorted(pictures[1]) == sorted(pictures[0])


def test_checkpoint_of_another_key_is_ignored(tmp_path):
    CheckpointFolder(tmp_path, "train-old").save({"model": 1})
    fresh = CheckpointFolder(tmp_path, "train-new")
    assert fresh.load() is None
    assert not (tmp_path / "train-old").exists()


def test_damaged_checkpoint_is_refused(tmp_path):
    folder = CheckpointFolder(tmp_path, "train-x")
    folder.file.write_bytes(b"half a file")
    with pytest.raises(VadError, match=r"state\.pt.*delete"):
        folder.load()


def test_checkpoint_cannot_run_code(tmp_path):
    folder = CheckpointFolder(tmp_path, "train-x")
    torch.save({"model": Killed()}, folder.file)
    with pytest.raises(VadError, match=r"state\.pt"):
        folder.load()


def test_best_held_out_weights_are_kept(split, tmp_path):
    model = small(iterations=12, learning_rate=0.3)  # so high that the loss rises
    result = run(model, split, tmp_path)
    losses = {row["iteration"]: row["val"] for row in result.history if "val" in row}
    assert list(losses) == [4, 8, 12]
    assert result.val_loss == min(losses.values())
    assert result.best_iteration == min(losses, key=losses.get)
    phase = model.phases()[0]
    picks = spread(split[1].lengths, phase.windows, 6)
    with torch.no_grad():
        again = torch.stack([phase.val(split[1].batch(picks[[n]], 4)) for n in range(len(picks))]).mean()
    assert again.item() == pytest.approx(result.val_loss, rel=1e-5)


def test_check_points_do_not_change_the_training(split, tmp_path):
    seldom, often = small(), small()
    once = TrainSettings(seed=5, check_every=10, val_windows=6, save_seconds=1e9)
    last = run(seldom, split, tmp_path / "a", once).val_loss
    every = TrainSettings(seed=5, check_every=1, val_windows=6, save_seconds=1e9)
    losses = {row["iteration"]: row["val"] for row in run(often, split, tmp_path / "b", every).history}
    assert losses[10] == last


@pytest.mark.gpu
@pytest.mark.parametrize("cache", ["device", "ram", "stream"])
def test_gpu_training_with_every_cache(tmp_path, cache):
    store = make_store(tmp_path / "data")
    whole = [Segment(clip, 0, store.length(clip)) for clip in store.clips("train")]
    models = [small(), small()]
    for model, kept in zip(models, ("device", cache), strict=True):
        parts = [ClipLoader(store, part, device="cuda", cache=kept) for part in (whole[:2], whole[2:])]
        settings = TrainSettings(**{**vars(SETTINGS), "dtype": torch.bfloat16})
        result = run(model, parts, tmp_path / kept / str(id(model)), settings)
        assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert same(*models)


class TwoPhases(Model):
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

    def predict_step(self, batch):
        return Prediction({"error": batch.frames.mean((1, 2, 3, 4))[:, None]}, batch.frames[:, :1, 0])


@pytest.mark.parametrize("killed_at", [("warm", 2), ("play", 1), ("play", 3)])
def test_several_optimizers_and_schedulers_resume_exactly(split, tmp_path, killed_at):
    every = TrainSettings(seed=5, check_every=100, log_every=1, save_seconds=ALWAYS)
    undisturbed = TwoPhases()
    expected = run(undisturbed, split, tmp_path / "a", every)
    assert undisturbed.begun == ["warm", "play"]
    assert expected.iterations == 7

    def kill(phase, iteration, values):
        if (phase, iteration) == killed_at:
            raise Killed

    with pytest.raises(Killed):
        run(TwoPhases(), split, tmp_path / "b", every, metrics=kill)
    resumed = TwoPhases()
    result = run(resumed, split, tmp_path / "b", every)
    assert same(resumed, undisturbed)
    assert result.history == expected.history


def test_phase_without_optimizers(split, tmp_path):
    class Mean(TwoPhases):
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


def test_non_finite_loss_stops_training(split, tmp_path):
    class Exploding(TwoPhases):
        def phases(self):
            return [Phase("grow", 100, self.windows, 2, self._step, {"sgd": torch.optim.SGD([self.start], 1e3)})]

        def _step(self, batch, update):
            loss = (self.start - 1).square().sum()  # each step overshoots 2000 times as far
            update("sgd", loss)
            return {"loss": loss}

    every = TrainSettings(check_every=100, log_every=5, save_seconds=ALWAYS)
    with pytest.raises(VadError, match=r"(inf|nan) at iteration \d+ of phase grow.*model\.\*\.learning_rate"):
        run(Exploding(), split, tmp_path, every)
    state = CheckpointFolder(tmp_path, "train-x").load()
    assert state["model"]["start"].isfinite().all()


def test_non_finite_val_loss_stops_training(split, tmp_path):
    class Blind(TwoPhases):
        def phases(self):
            sgd = {"sgd": torch.optim.SGD([self.start], 0.1)}
            return [Phase("warm", 3, self.windows, 2, self._warm, sgd, val=lambda batch: torch.tensor(torch.nan))]

    with pytest.raises(VadError, match=r"validation.*nan at iteration 3 of phase warm.*model\.\*\.learning_rate"):
        run(Blind(), split, tmp_path)


def test_frozen_parameters_stay_frozen_after_resume(split, tmp_path):
    class Freezing(TwoPhases):
        def phases(self):
            both = torch.optim.SGD([self.start, self.generator], 0.1)
            return [Phase("one", 6, self.windows, 2, self._step, {"sgd": both}, begin=self._freeze)]

        def _freeze(self):
            self.start.requires_grad_(False)

        def _step(self, batch, update):
            loss = (self.start + self.generator - batch.frames.mean()).square().sum()
            update("sgd", loss)
            return {"loss": loss}

    every = TrainSettings(check_every=100, log_every=1, save_seconds=ALWAYS)
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


def test_held_out_windows_have_stride_one(split, tmp_path):
    result = run(small(4, strides=(2, 3)), split, tmp_path)
    assert result.val_loss is not None
    assert (spread([20, 20], Windows(4, (2,)), 8)[:, 2] == 1).all()


def test_short_held_out_clips_are_refused(split, tmp_path):
    kept, held = split
    short = ClipLoader(held.frames, [Segment(held.segments[0].clip, 0, 3)])
    with pytest.raises(VadError, match=r"train\.val.*4 frames"):
        run(small(), (kept, short), tmp_path)
    assert not (tmp_path / "train-x" / "state.pt").exists()
