"""Choose the device and the precision of a model."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import torch

from vadcore.utils.errors import VadError


def choose_device(wanted: str = "auto") -> torch.device:
    """Return the torch device for ``auto`` (GPU if available, else CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    In distributed training (``LOCAL_RANK`` in the environment) each process gets its own GPU. Raises :class:`VadError` if
    the device does not exist.
    """
    rank = os.environ.get("LOCAL_RANK")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and rank is not None:
        wanted = f"cuda:{rank}"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise VadError(f"machine.device: {wanted!r} is not a device; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise VadError(
            f"machine.device: {wanted!r}, but torch sees {torch.cuda.device_count()} CUDA device(s); use auto or cpu"
        )
    return device


def bfloat16_is_faster(device: torch.device) -> tuple[bool, str]:
    """Return whether ``device`` has bfloat16 hardware, and a description of it.

    The decision uses processor flags, not timing, so that it is always the same on the same machine. ``make bench``
    measures both precisions.
    """
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return supported, f"{torch.cuda.get_device_name(device)} {'has' if supported else 'lacks'} bfloat16 units"
    if torch.cpu._is_amx_tile_supported():
        return True, "the processor has AMX tiles"
    if torch.cpu._is_avx512_bf16_supported() and _is_amd():
        return True, "the AMD processor has AVX512-BF16"
    return False, "the processor has no AMX tiles"


def _is_amd() -> bool:
    """Whether the processor is from AMD.

    With AVX512-BF16 but no AMX, training in bfloat16 takes 0.7 times as long as in float32 on AMD (Zen 4), and 0.9 to 1.8
    times as long on Intel.
    """
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()


def choose_precision(wanted: str, device: torch.device) -> tuple[torch.dtype, str]:
    """Return the dtype for autocast and a sentence for the log. ``wanted``: auto, float32 or bfloat16."""
    if wanted != "auto":
        return getattr(torch, wanted), f"{wanted} as asked"
    faster, why = bfloat16_is_faster(device)
    return (torch.bfloat16, f"bfloat16 autocast: {why}") if faster else (torch.float32, f"float32: {why}")


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of this process in MiB: GPU memory, or resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # KiB on Linux


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast context for forward passes; does nothing for float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
