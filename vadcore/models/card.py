"""Model cards in the form of the Hugging Face Hub: a README.md with metadata, in the folder of the weights."""

from __future__ import annotations

import inspect

import yaml

from vadcore.models import model_class
from vadcore.models.base import ModelConfig

CARD = """\
---
{metadata}---

# {name}, trained on {dataset}

{description}

- **Training data**: normal clips of the data set `{dataset}`: {clips} clips for training and {held} held out for
  validation and calibration. No test clip and no label was used.
- **Training**: {iterations} iterations, seed {seed}, {precision}; weights of iteration {best}.
- **Use**: scoring of footage of the same camera. Scores are not comparable between cameras or models without calibration.
- **Limits**: anomalies that look and move like normal objects are not found.

```python
from vadcore.models import load_model

model = load_model("{folder}")
```

## Settings

```yaml
{settings}```
"""


def model_card(name: str, config: ModelConfig, metrics: dict, clips: int, held: int, folder: str) -> str:
    """Text of the model card.

    Parameters
    ----------
    name: model name in params.yaml. metrics: content of the model's metrics.json. clips, held: number of clips for training
    and held out. folder: path of the weights.
    """
    metadata = {
        "library_name": "vadcore",
        "license": "apache-2.0",
        "pipeline_tag": "video-classification",
        "tags": ["video-anomaly-detection", "one-class"],
        "datasets": [metrics["dataset"]],
    }
    return CARD.format(
        metadata=yaml.safe_dump(metadata, sort_keys=False),
        name=name,
        dataset=metrics["dataset"],
        description=inspect.cleandoc(model_class(name).__doc__ or ""),
        clips=clips,
        held=held,
        iterations=metrics["iterations"],
        seed=metrics["seed"],
        precision=metrics["precision"],
        best=metrics["best_iteration"] or "0 (nothing is learned)",
        folder=folder,
        settings=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
    )
