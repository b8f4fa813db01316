"""Run by test_processes.py through torchrun: trains a small model, the main process saves its weights."""

import sys
from pathlib import Path

import torch
from accelerate import PartialState

from vadcore.checkpoint import CheckpointFolder
from vadcore.footage import Footage
from vadcore.models import create_model, save_model
from vadcore.store import ClipStore
from vadcore.train import TrainSettings, Watcher, train
from vadcore.windows import Segment

store, out = ClipStore(sys.argv[1], "frames"), Path(sys.argv[2])
state = PartialState(cpu=True)
torch.manual_seed(0)
section = {"image_size": (24, 32), "frames": 4, "conv": (8, 8), "lstm": (8,), "batch_size": 4, "iterations": 12}
model = create_model("convlstm_ae", {**section, "learning_rate": 1e-3})
whole = [Segment(clip, 0, store.length(clip)) for clip in store.clips("train")]
settings = TrainSettings(seed=5, check_every=6, held_out_windows=6)
checkpoint = CheckpointFolder(out / "checkpoints", "train-x")
train(model, Footage(store, whole[:2]), Footage(store, whole[2:]), settings, checkpoint, Watcher(progress=False))
if state.is_main_process:
    save_model(model, "convlstm_ae", out)
    print(f"{state.num_processes} processes")
state.destroy_process_group()
