"""Where a model runs and in which precision."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import torch

from vadcore.utils.errors import VadError


def choose_device(wanted: str = "auto") -> torch.device:
    """``auto``: the GPU when torch can use one, else the CPU. Raises :class:`VadError` for one that is not there.

    Of several processes that train together (``LOCAL_RANK`` in the environment) each gets a GPU of its own.
    """
    rank = os.environ.get("LOCAL_RANK")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and rank is not None:
        wanted = f"cuda:{rank}"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise VadError(f"machine.device: {wanted!r} is no device; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise VadError(
            f"machine.device: {wanted!r}, but torch sees {torch.cuda.device_count()} CUDA device(s); use auto or cpu"
        )
    return device


def bfloat16_is_faster(device: torch.device) -> tuple[bool, str]:
    """Whether bfloat16 has hardware of its own on ``device``, and what that is.

    Decided from what the processor says it has, not by timing, so that the same machine always decides the same.
    ``make bench`` measures both, side by side.
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
    """Training in bfloat16 with AVX512-BF16 alone takes 0.7 of the time of float32 on AMD's cores (Zen 4), 0.9 to 1.8 times
    as long on Intel's."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()


def choose_precision(wanted: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype for autocast, and one sentence for the log. ``wanted``: auto, float32 or bfloat16."""
    if wanted != "auto":
        return getattr(torch, wanted), f"{wanted} as asked"
    faster, why = bfloat16_is_faster(device)
    return (torch.bfloat16, f"bfloat16 autocast: {why}") if faster else (torch.float32, f"float32: {why}")


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process has held at once: of the GPU, or its resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # KiB on Linux


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context in which forward passes run; does nothing for float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
