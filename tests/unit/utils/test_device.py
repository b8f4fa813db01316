import pytest
import torch

from vadcore.utils import device
from vadcore.utils.device import choose_precision


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "amd", "wanted"),
    [
        (True, True, False, torch.bfloat16),
        (False, True, True, torch.bfloat16),
        (False, True, False, torch.float32),
        (False, False, True, torch.float32),
    ],
)
def test_auto_precision_on_cpu(monkeypatch, amx, avx512_bf16, amd, wanted):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(device, "_is_amd", lambda: amd)
    assert choose_precision("auto", torch.device("cpu"))[0] == wanted
    assert choose_precision("bfloat16", torch.device("cpu"))[0] == torch.bfloat16
