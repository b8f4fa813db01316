"""Combine trained and scored systems of a data set into one. No network runs here."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from tasks import paths
from tasks.scoring.results import write_results
from tasks.stage import Stage
from vadcore.data.store import ClipStore
from vadcore.data.windows import Segment
from vadcore.evaluation.cost import read_cost, write_cost
from vadcore.evaluation.inference import MAP_MAX, ClipScores
from vadcore.evaluation.preprocess import MEMBERS, system_files
from vadcore.models.fusion import Fusion, Member, Scale, save_fusion
from vadcore.utils.errors import VadError
from vadcore.utils.files import complete, write_json
from vadcore.utils.folders import FUSED


def work(stage: Stage) -> None:
    params, dataset, name = stage.params, stage.dataset, stage.model
    config = params.fusion[name]
    folder, scores = paths.model(dataset, name), [paths.scores(dataset, member) for member in config.of]
    frames = ClipStore(paths.frames(dataset), "frames")
    flow = ClipStore(paths.flow(dataset), "flow") if params.reads_flow(name) else None
    stage.say(f"{name} on {dataset}: the {config.rule} of {', '.join(config.of)}")

    normal = _same_frames(
        dataset, config.of, [pd.read_parquet(paths.model(dataset, member) / "normal.parquet") for member in config.of]
    )
    trained = [json.loads((paths.model(dataset, member) / "metrics.json").read_text()) for member in config.of]
    measures = [json.loads((of_member / "metrics.json").read_text())["score_measure"] for of_member in scores]
    members = {
        member: Member(
            measure=measure,
            precision=known["precision"],
            score=Scale.over(table.loc[~table["seen"], measure].to_numpy(), config.high),
            map=Scale.over(table.loc[~table["seen"], MAP_MAX].to_numpy(), config.high),
        )
        for member, known, table, measure in zip(config.of, trained, normal, measures, strict=True)
    }
    fusion = Fusion(system=name, members=members, **config.model_dump())
    _write_model(folder, dataset, fusion, normal, trained)

    tables = [
        {
            clip: rows.sort_values("frame")
            for clip, rows in pd.read_parquet(of_member / "frames.parquet").groupby("clip")
        }
        for of_member in scores
    ]
    scored = {}
    for clip, array in frames.arrays("test").items():
        maps = [_maps(of_member / "maps" / f"{clip.name}.npz") for of_member in scores]
        scored[Segment(clip, 0, array.shape[0])] = ClipScores(
            fusion.measures([table[clip.name] for table in tables]), fusion.maps(maps)
        )
    facts = {"members": " + ".join(config.of), "rule": config.rule}
    write_results(stage, FUSED, facts, scored, _cost(scores), frames, flow)
    for made in sorted(folder.iterdir()):
        stage.run.made(made)


def _same_frames(dataset: str, of: tuple[str, ...], tables: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """The rows of normal footage that all members have scored: a member with a trained network scores less of it."""
    keys = ["clip", "start", "frame"]
    held = [table.loc[table["held_out"], [*keys, "fps"]].sort_values(keys, ignore_index=True) for table in tables]
    for member, of_member in zip(of[1:], held[1:], strict=True):
        if not of_member.equals(held[0]):
            raise VadError(
                f"{paths.model(dataset, member)}: was trained with different held-out footage than "
                f"{paths.model(dataset, of[0])}; train both again: dvc repro"
            )
    shared = pd.MultiIndex.from_frame(tables[0][keys])
    for table in tables[1:]:
        shared = shared.intersection(pd.MultiIndex.from_frame(table[keys]), sort=False)
    shared = shared.sort_values()
    return [table.set_index(keys).loc[shared].reset_index() for table in tables]


def _write_model(folder: Path, dataset: str, fusion: Fusion, normal: list[pd.DataFrame], trained: list[dict]) -> None:
    """Write the fusion, its members, and its measures of normal footage."""
    shutil.rmtree(folder / MEMBERS, ignore_errors=True)
    for member in fusion.of:
        (folder / MEMBERS / member).mkdir(parents=True)
        for file in system_files(paths.model(dataset, member)):
            shutil.copy(file, folder / MEMBERS / member)
    save_fusion(fusion, folder)
    known = [column for column in ("clip", "start", "frame", "fps", "seconds", "held_out") if column in normal[0]]
    table = normal[0][known].assign(
        seen=np.any([of_member["seen"] for of_member in normal], axis=0), **fusion.measures(normal)
    )
    with complete(folder / "normal.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    metrics = {
        "dataset": dataset,
        "model": fusion.system,
        "seed": next((of_member for of_member in trained if of_member["trained"]), trained[0])["seed"],
        "trained": any(known["trained"] for known in trained),
        "parameters": sum(known["parameters"] for known in trained),
        "iterations": 0,  # iterations of the fusion itself
        "precision": None,
    }
    write_json(folder / "metrics.json", metrics)
    write_cost(folder, {"train_seconds": 0.0})


def _maps(file: Path) -> np.ndarray:
    with np.load(file) as saved:
        return saved["maps"]


def _cost(scores: list[Path]) -> dict:
    """Return the speed of all members run one after the other; empty if the speed of one is unknown."""
    speeds = [read_cost(of_member).get("score_fps") for of_member in scores]
    return {"score_fps": round(1 / sum(1 / speed for speed in speeds), 1)} if all(speeds) else {}
