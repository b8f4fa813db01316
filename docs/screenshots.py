"""Take screenshots of the report, DVC plots and MLflow for the README and the docs.

    python -m docs.screenshots [--chromium /usr/bin/chromium] [--vega FOLDER]
    python -m docs.screenshots --model latent_lstm [--chromium /usr/bin/chromium]

Run it in a project after ``dvc repro``. It opens reports/index.html, the page of ``dvc plots show`` and an MLflow
server on mlflow.db. It writes docs/report.png, docs/timeline.png, docs/dvc-plots.png (only the last trained system; the
full page has all), docs/mlflow-runs.png and docs/mlflow-scores.png. DVC's page loads Vega from the internet. On a
machine without internet access, FOLDER must contain vega.min.js, vega-lite.min.js and vega-embed.min.js.

With ``--model`` it writes docs/mlflow-compare.png instead: the trainings of all systems whose names begin with NAME (a
system and its variants), with every curve that all of them have.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

DOCS = Path("docs")
STORE = "sqlite:///mlflow.db"
WIDE = {"width": 1400, "height": 900}
PATIENCE = 180_000  # timeout in ms, for a busy machine
DRAWN_ALARM = """() => {
    for (const alarm of document.querySelectorAll(".clip .raised li")) {
        const clip = alarm.closest(".clip");
        if (clip.querySelectorAll("option")[alarm.dataset.system].dataset.reconstruction)
            return [clip.id, [...clip.querySelectorAll(".raised li")].indexOf(alarm)];
    }
}"""
CURVES = ("loss", "val", "psnr", "ssim", "sharpness", "windows_per_second")
SCORES = ("roc/abnormal_found", "alarms/events_found", "alarms/false_an_hour", "alarms/delay_seconds")


@contextmanager
def mlflow_server() -> Iterator[str]:
    """Run an MLflow server on this project's database and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        STORE,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + PATIENCE / 1000
        while True:
            try:
                urllib.request.urlopen(f"{address}/health").close()
                break
            except OSError:
                if time.monotonic() > end or process.poll() is not None:
                    raise
                time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.wait()


def report(page: Page) -> None:
    page.goto(Path("reports/index.html").resolve().as_uri())
    page.screenshot(path=DOCS / "report.png")
    # select the first alarm of a system that draws frames, at its peak
    name, number = page.evaluate(DRAWN_ALARM)
    clip = page.locator(f"#{name}")
    clip.locator(".alarms summary").click()
    clip.locator(".raised button").nth(number).click()
    page.add_style_tag(content=".bar,.snapshots{position:static}")  # sticky parts would cover the clip
    clip.screenshot(path=DOCS / "timeline.png")


def plots(page: Page, vega: Path | None) -> None:
    command = [sys.executable, "-m", "dvc", "plots", "show", "--out", "dvc_plots", *_plots_of_one()]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    if vega:
        page.route(
            re.compile("^https://"),
            lambda route: route.fulfill(path=vega / f"{route.request.url.rpartition('/')[2].partition('@')[0]}.min.js"),
        )
    page.goto(Path("dvc_plots/index.html").resolve().as_uri())
    page.wait_for_selector("canvas", state="attached")
    page.wait_for_timeout(4000)
    page.screenshot(path=DOCS / "dvc-plots.png", full_page=True)
    page.unroute_all()


def _plots_of_one() -> list[str]:
    """Return the plots of the last trained system, and one picture of optical flow if there is any."""
    learned = sorted(Path("models").glob("*/*/history.csv"), key=lambda path: path.stat().st_mtime)
    if not learned:
        sys.exit("models: no system that learns; run dvc repro first")
    dataset, model = learned[-1].parts[1:3]
    scores = Path("scores", dataset, model)
    pictures = sorted(Path("reports/strips").glob(f"{dataset}*{model}*.png"))[-1:]
    pictures += sorted(Path("pictures", dataset, "optical_flow").glob("*.png"))[:1]
    return [str(path) for path in (learned[-1], scores / "roc.csv", scores / "operating.csv", *pictures)]


def runs(page: Page, address: str) -> None:
    """Take a screenshot of the stages of the latest pipeline run."""
    _open_runs(page, address, "", "TABLE")
    page.mouse.move(0, 0)
    page.wait_for_timeout(4000)
    page.screenshot(path=DOCS / "mlflow-runs.png")


def trainings(page: Page, address: str, model: str) -> None:
    """Take a screenshot that compares the trainings of systems whose names begin with ``model``."""
    trained = f"tags.`vad.stage` = 'train' AND tags.`vad.model` LIKE '{model}%'"
    found = MlflowClient(STORE).search_runs([_experiment()], trained)
    if not found:
        sys.exit(f"mlflow.db: no run of the stage train of {model}; run dvc repro first")
    common = set.intersection(*(set(run.data.metrics) for run in found))
    shown = [name for curve in CURVES for name in sorted(common) if name.rpartition("/")[2] == curve]
    _compared(page, address, trained, shown, "mlflow-compare.png")


def scores(page: Page, address: str) -> None:
    """Take a screenshot that compares the scores of all systems in the latest pipeline run."""
    scored = "tags.`vad.stage` = 'score'"
    found = MlflowClient(STORE).search_runs([_experiment()], scored, order_by=["attributes.start_time DESC"])
    latest = found[0].data.tags["mlflow.parentRunId"]
    _compared(page, address, f"{scored} AND tags.`mlflow.parentRunId` = '{latest}'", SCORES, "mlflow-scores.png")


def _compared(page: Page, address: str, wanted: str, shown: Sequence[str], file: str) -> None:
    """Take a screenshot of the curves ``shown``, for the runs that match MLflow's filter ``wanted``."""
    page.set_viewport_size(WIDE | {"height": 1140})  # high enough for two rows of charts
    _open_runs(page, address, wanted, "CHART")
    page.get_by_test_id("experiment-view-runs-visibility-column-header").first.click()
    page.get_by_text("Show all runs").click()  # all runs, not only the first ten
    page.get_by_placeholder("Search metric charts").fill(f"^({'|'.join(shown)})$")
    page.wait_for_selector(".main-svg", timeout=PATIENCE)
    page.wait_for_timeout(4000)  # until all charts are drawn
    page.mouse.move(0, 0)  # avoid a tooltip
    page.screenshot(path=DOCS / file)


def _experiment() -> str:
    (experiment,) = (found for found in MlflowClient(STORE).search_experiments() if found.name == "vad")
    return experiment.experiment_id


def _open_runs(page: Page, address: str, wanted: str, mode: str) -> None:
    """Open MLflow's list of runs and expand the latest pipeline run.

    wanted: MLflow's search filter. mode: TABLE or CHART.
    """
    choices = {"mlflow.assistant.panelOpen_v1": "false", "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}
    page.add_init_script(f"Object.entries({json.dumps(choices)}).forEach(choice => localStorage.setItem(...choice))")
    only = urllib.parse.quote(wanted, safe="")
    page.goto(f"{address}/#/experiments/{_experiment()}/runs?searchFilter={only}&compareRunsMode={mode}")
    _open_pipeline(page)


def _open_pipeline(page: Page) -> None:
    """Expand the stages of the latest pipeline run, unless MLflow remembers the group as expanded."""
    page.wait_for_selector(".ag-row", timeout=PATIENCE)
    page.wait_for_timeout(2000)
    second = page.locator('.ag-row[row-index="1"]')
    if not second.count() or any("pipeline " in text for text in second.all_inner_texts()):
        page.locator(".ag-row button:visible").first.click()
    second.first.wait_for(timeout=PATIENCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser's program")
    parser.add_argument("--vega", type=Path, help="a folder with Vega's scripts")
    parser.add_argument("--model", metavar="NAME", help="instead compare the trainings of systems whose names begin so")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=WIDE)
        if arguments.model:
            with mlflow_server() as address:
                trainings(page, address, arguments.model)
        else:
            report(page)
            plots(page, arguments.vega)
            with mlflow_server() as address:
                runs(page, address)
                scores(page, address)
        browser.close()


if __name__ == "__main__":
    main()
