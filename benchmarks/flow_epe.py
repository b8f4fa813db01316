"""Measure end-point error and speed of every optical flow estimator on pairs with known flow.

    python -m benchmarks.flow_epe [--flownet FILE] [--raft FILE] [--out benchmarks/results/flow-epe.json]

Pairs: generated ones not used in training, test clips of ``street``, and the content of ``$VAD_DATA_DIR/flyingchairs``,
all together and each pair separately. Errors are in pixels, speed in pairs per second. The first row of every set is
the error of zero flow. ``raft`` is included if torchvision is installed and ``--raft`` gives its weights.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.result import write_result
from vadcore.data import formats as datasets
from vadcore.data.formats.street import StreetConfig
from vadcore.flow.epe import FlowSet, chairs_pairs, generated_pairs, street_pairs, table
from vadcore.flow.estimators import create_estimator
from vadcore.utils.device import choose_device

SIZE = (128, 192)  # of the generated pairs; same as street


def sets(chairs: Path | None) -> Iterator[FlowSet]:
    """Yield the sets of pairs."""
    yield generated_pairs(SIZE)
    with tempfile.TemporaryDirectory() as raw:
        street = StreetConfig(format="street", train_clips=1, train_frames=2)
        datasets.prepare(street, Path(raw), say=print)
        yield from street_pairs(street, raw)
    if chairs is None:
        print("FlyingChairs: not measured; set VAD_DATA_DIR to a folder that holds flyingchairs/")
        return
    pairs = chairs_pairs(chairs)
    yield pairs
    for n in range(len(pairs.first)):
        one = slice(n, n + 1)
        valid = None if pairs.valid is None else pairs.valid[one]
        yield FlowSet(f"FlyingChairs, pair {n + 1}", pairs.first[one], pairs.second[one], pairs.flow[one], valid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flownet", type=Path, default=Path("weights/flownet.safetensors"))
    parser.add_argument("--raft", type=Path, help="torchvision's weights of RAFT small")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = str(choose_device("auto"))
    options: dict[str, dict] = {
        "flownet": {"weights": str(arguments.flownet), "device": device},
        "flownet, enlarged twice": {"weights": str(arguments.flownet), "device": device, "enlarge": (2, 2)},
        "dis": {},
        "farneback": {},
    }
    if arguments.raft:
        options["raft"] = {"weights": str(arguments.raft), "device": device}
    estimators = {name: create_estimator(name.partition(",")[0], **given) for name, given in options.items()}
    print(f"device {device}, {torch.get_num_threads()} threads")
    chairs = Path(os.environ.get("VAD_DATA_DIR", "")) / "flyingchairs"
    rows = []
    for pairs in sets(chairs if chairs.is_dir() else None):
        for row in table(estimators, [pairs]):
            rows.append({**row, "epe": round(row["epe"], 4), "fps": row["fps"] and round(row["fps"], 1)})
            speed = f"{row['fps']:8.1f} pairs/s" if row["fps"] else ""
            print(f"{row['set']:24s} {row['estimator']:24s} {row['epe']:7.3f} px  {speed}", flush=True)
    if arguments.out:
        write_result(arguments.out, rows, profile=None)


if __name__ == "__main__":
    main()
