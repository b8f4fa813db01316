"""A small pipeline for tests: dvc.yaml, params and the short program that its stages run."""

from contextlib import chdir
from pathlib import Path

import yaml

DVC_YAML = """
stages:
  prepare:
    matrix:
      dataset: ${datasets}
    cmd: python work.py raw/${item.dataset} raw ${item.dataset}
    params:
      - raw.${item.dataset}
    outs:
      - raw/${item.dataset}:
          persist: true
  train:
    matrix: &both
      dataset: ${datasets}
      model: ${models}
    cmd: python work.py models/${item.dataset}/${item.model} model ${item.model}
    deps:
      - raw/${item.dataset}
    params:
      - model.${item.model}
    outs:
      - models/${item.dataset}/${item.model}
  report:
    cmd: python work.py report report
    deps:
      - models
    params:
      - report
    outs:
      - report
"""
# what a stage does: `wait <file>`, or nothing (`say <text>`); then it writes its out
WORK = """
import os, sys, time
from pathlib import Path
import yaml
out, params = Path(sys.argv[1]), yaml.safe_load(Path("params.yaml").read_text())
for key in sys.argv[2:]:
    params = params[key]
verb, *words = params.split()
print(f"{verb} for {out}: nice {os.nice(0)}, {os.environ.get('VAD_PIPELINE')}", flush=True)
with open("begun.txt", "a") as file:
    print(out, os.getpid(), file=file)
while verb == "wait" and not os.path.exists(words[0]):
    time.sleep(0.05)
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(" ".join([str(out), verb, *words]))
"""
TOY = {
    "datasets": ["a", "b"],
    "models": ["m-1", "m2"],
    "raw": {"a": "say a", "b": "say b"},
    "model": {"m-1": "say one", "m2": "say two"},
    "report": "say done",
}


def changed(**changes: str) -> dict:
    """TOY with changed work for some stages: ``m2="wait go.txt"``, ``a=...`` (of the data set), ``report=...``."""
    params = {**TOY, "raw": {**TOY["raw"]}, "model": {**TOY["model"]}}
    for name, work in changes.items():
        name = name.replace("_", "-")
        section = params["raw"] if name in params["raw"] else params["model"] if name in params["model"] else params
        section[name] = work
    return params


def make_toy(folder: Path, dvc_yaml: str = DVC_YAML) -> None:
    """Write the pipeline and set up DVC without git, as before a first run. Starts no process."""
    from dvc.repo import Repo

    (folder / "dvc.yaml").write_text(dvc_yaml)
    write_params(folder, TOY)
    Repo.init(str(folder), no_scm=True).close()


def write_params(folder: Path, params: dict) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def finish_toy(folder: Path) -> None:
    """Make all outs and dvc.lock, as if all stages had run."""
    from dvc.repo import Repo

    with chdir(folder), Repo(str(folder)) as repo:
        for out in repo.index.outs:
            Path(out.fs_path).parent.mkdir(parents=True, exist_ok=True)
            Path(out.fs_path).write_text(out.fs_path)
        repo.commit(force=True)
