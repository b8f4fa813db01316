"""Build one report page with the results of everything that params.yaml lists."""

import json

from tasks import paths
from tasks.stage import Stage
from vadcore.report import build_report
from vadcore.utils.errors import VadError
from vadcore.utils.provenance import run_facts


def work(stage: Stage) -> None:
    params = stage.params
    facts = {}
    for dataset in params.datasets:
        try:
            facts[dataset] = json.loads(paths.facts(dataset).read_text())
        except FileNotFoundError as error:
            raise VadError(f"{paths.facts(dataset)}: missing; run: dvc repro extract@{dataset}") from error
    used = {"dataset": set(params.datasets), "model": set(params.models)}
    settings = params.model_dump(mode="json", exclude={"machine"})  # machine changes no result
    for section, names in used.items():  # leave out sections that are not listed
        settings[section] = {name: value for name, value in settings[section].items() if name in names}
    build_report(
        paths.SCORES,
        paths.MODELS,
        paths.REPORTS,
        list(params.datasets),
        list(params.all_models),
        run_facts("dvc repro", params.profile),
        settings,
        facts,
        title=params.report.title,
        check_points=params.report.check_points,
        flow_pictures={name: paths.flow_pictures(name) for name in params.datasets if params.needs_flow},
    )
    for name in ("index.html", "metrics.json", "results.csv", "quality.json", "rollouts.json", "strips"):
        stage.run.artifact(paths.REPORTS / name)
        stage.run.made(paths.REPORTS / name)
    stage.run.artifact(paths.REPORTS / "run.js")
    stage.say(f"{paths.REPORTS / 'index.html'}: open it in a browser")
