"""The layers hold, and the files that name the same things agree."""

import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import yaml

from docs.configuration import sections
from tasks.configure import code_of_stages
from tests.helpers.project import ROOT
from tests.helpers.readme import blocks
from vadcore.config import load_params
from vadcore.data.formats import SHIPPED
from vadcore.models import list_models
from vadcore.utils import code
from vadcore.utils.folders import FUSION


def test_import_contracts():
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_vadcore_does_not_import_pipeline_packages():
    """Machines that only train and score have no DVC, MLflow, Prefect or dask."""
    program = (
        "import sys; hidden = ('dvc', 'mlflow', 'prefect', 'dask', 'distributed', 'pyarrow')\n"
        "sys.modules.update({name: None for name in hidden})\n"
        "import vadcore.training.trainer, vadcore.evaluation.evaluate, vadcore.data.extract, vadcore.flow.compute\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_extraction_does_not_import_torch():
    code = "import sys, tasks.extract, vadcore.data.extract, vadcore.flow.compute; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_requirements_are_pinned():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0].split("[")[0]).lower() for line in lines if line}
    assert all(re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.!+-]+", line) for line in lines if line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\s<>=\[;]", line)[0]).lower() for line in asked}
    assert names <= pinned


def test_each_system_has_its_own_file():
    """The digest of the code of a system's stages starts at vadcore/models/<name>.py."""
    for name in list_models():
        assert (ROOT / "vadcore" / "models" / f"{name}.py").exists()


def test_docs_list_systems_and_formats():
    for page, names in (("systems.md", (*list_models(), FUSION)), ("data-sets.md", SHIPPED)):
        text = (ROOT / "docs" / page).read_text()
        assert [name for name in names if f"| `{name}` |" not in text] == []


TERMS = [
    *("threshold", "false-alarm rate", "calibration", "optical flow", "checkpoint", "resume", "baseline", "p-value"),
    *("frame rate", "false positive", "latent", "autoencoder", "optimizer", "validation", "held-out", "seed"),
    *("alert", "champion", "roll back", "inbox", "retry", "worker", "schedule", "deployment", "artifact", "GPU"),
    *("precision", "bfloat16", "ROC", "AUC", "RBDC", "TBDC", "perspective", "anomaly map", "background", "model card"),
]


def test_docs_use_standard_terms():
    """A reader who searches for one of these finds it."""
    text = "\n".join(page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    assert [term for term in TERMS if term not in text] == []


def test_configuration_page_is_current():
    """`make docs` writes it."""
    assert sections() in (ROOT / "docs/configuration.md").read_text()


def test_python_example_compiles():
    """tests/integration/test_pipeline.py runs it."""
    (code,) = blocks("From Python", "python")
    compile(code, "docs/extending.md", "exec")
    assert len([line for line in code.splitlines() if line and not line.startswith(("from", "import"))]) <= 10


def test_each_stage_depends_on_the_digest_of_its_code():
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    digests = code_of_stages(load_params(ROOT / "params.yaml"))
    assert sorted(["configure", *digests]) == sorted(graph)
    for stage, digest in digests.items():
        axis = "dataset" if stage in ("prepare", "extract") else "model"
        key = f"code.{stage}" + (f".${{item.{axis}}}" if isinstance(digest, dict) else "")
        assert key in graph[stage]["params"][0]["settings.yaml"]


def test_code_digest_covers_imported_code(tmp_path, monkeypatch):
    """The digest of a stage covers its module and what that imports, without comments."""
    for package in ("vadcore", "tasks"):
        shutil.copytree(ROOT / package, tmp_path / package)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    params = load_params(ROOT / "params.yaml")

    def changed_by(file: str, text: str) -> set[str]:
        """The stages whose digest changes when ``text`` is appended to ``file``."""
        digests = []
        for more in ("", text):
            (tmp_path / file).write_text((tmp_path / file).read_text() + more)
            code._read.cache_clear()
            found = code_of_stages(params)
            digests.append(
                {f"{stage}.{name}": digest for stage in ("train", "score") for name, digest in found[stage].items()}
            )
            digests[-1] |= {stage: digest for stage, digest in found.items() if isinstance(digest, str)}
        return {stage for stage, digest in digests[0].items() if digest != digests[1][stage]}

    assert changed_by("vadcore/models/components/hog_hof.py", "# a comment\n") == set()
    assert changed_by("vadcore/models/components/hog_hof.py", "changed = True\n") == {
        "train.hog_hof_ae",
        "score.hog_hof_ae",
    }
    assert changed_by("tasks/fuse.py", "changed = True\n") == {"fuse"}
    assert "train.gru_ae" in changed_by(
        "vadcore/utils/render.py", "changed = True\n"
    )  # draws the pictures of check points


def test_training_needs_no_video_decoder():
    code = "import sys; sys.modules['av'] = None; import vadcore.config, vadcore.training.trainer, vadcore.data.extract"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
