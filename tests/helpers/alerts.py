"""Result folders with alerts, for tests."""

from pathlib import Path

from vadcore.detection.alerts import QUEUE, write_ready


def results_with_alerts(out: Path, key: str = "gate", events: int = 2) -> Path:
    """The folder ``out/key`` with an alert for each event, not queued yet."""
    folder = out / key
    folder.mkdir(parents=True)
    about = {
        "video": f"{key}.mp4",
        "detector": {"dataset": "yard", "model": "conv_ae"},
        "threshold": 1.5,
        "target_far_per_hour": 12.0,
        "events": [{"number": n + 1, "start_seconds": 3.0 * n, "peak_score": 2.0, "box": None} for n in range(events)],
    }
    write_ready(folder, key, about, folder)
    return folder


def pending(out: Path) -> list[Path]:
    return sorted((out / QUEUE / "pending").glob("*/*.json"))
