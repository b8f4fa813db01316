"""FlowNet2-SD, the optical flow network for small displacements.

Ilg et al. 2017, "FlowNet 2.0: Evolution of Optical Flow Estimation with Deep Networks". The encoder reduces the resolution
to 1/64. The decoder refines the flow scale by scale to 1/4. Modules have the names of the published checkpoint, so that
it can be loaded unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vadcore.utils.errors import VadError, one_line
from vadcore.utils.files import complete

FLOW_UNIT = 20.0  # unit of the network's flow, pixels
COARSEST = 64  # height and width of the input must be multiples of this
PUBLISHED_WIDTH = 1.0  # width of the published checkpoint
SLOPE = 0.1  # of the leaky ReLU
Times = Annotated[float, Field(ge=1, le=8)]
_Both = BeforeValidator(lambda given: given if isinstance(given, Sequence) else (given, given))
Enlarge = Annotated[tuple[Times, Times], _Both]  # factors [height, width], or one number for both


class FlowNetSD(nn.Module):
    """FlowNet2-SD network.

    ``width``: factor for the number of channels of every layer. 1 is the published network (45 371 666 parameters).
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        self.width = width

        def wide(channels: int) -> int:
            return max(1, round(channels * width))

        def conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.LeakyReLU(SLOPE, inplace=True))

        def deconv(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(nn.ConvTranspose2d(before, after, 4, 2, 1), nn.LeakyReLU(SLOPE, inplace=True))

        c1, c2, c3, c5, c6 = (wide(channels) for channels in (64, 128, 256, 512, 1024))
        self.conv0 = conv(6, c1)
        self.conv1, self.conv1_1 = conv(c1, c1, 2), conv(c1, c2)  # 1/2
        self.conv2, self.conv2_1 = conv(c2, c2, 2), conv(c2, c2)  # 1/4
        self.conv3, self.conv3_1 = conv(c2, c3, 2), conv(c3, c3)  # 1/8
        self.conv4, self.conv4_1 = conv(c3, c5, 2), conv(c5, c5)  # 1/16
        self.conv5, self.conv5_1 = conv(c5, c5, 2), conv(c5, c5)  # 1/32
        self.conv6, self.conv6_1 = conv(c5, c6, 2), conv(c6, c6)  # 1/64

        before, self.predict_flow6 = c6, nn.Conv2d(c6, 2, 3, 1, 1)
        for scale, skip, after in ((5, c5, c5), (4, c5, c3), (3, c3, c2), (2, c2, c1)):
            # channels of encoder features (skip connection), decoder features and upsampled coarser flow
            joined = skip + after + 2
            setattr(self, f"deconv{scale}", deconv(before, after))
            setattr(self, f"upsampled_flow{scale + 1}_to_{scale}", nn.ConvTranspose2d(2, 2, 4, 2, 1))
            setattr(self, f"inter_conv{scale}", nn.Sequential(nn.Conv2d(joined, after, 3, 1, 1)))
            setattr(self, f"predict_flow{scale}", nn.Conv2d(after, 2, 3, 1, 1))
            before = joined

        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Kaiming initialisation. The initial flow is near zero; flow upsampling starts as bilinear interpolation."""
        line = torch.tensor([0.25, 0.75, 0.75, 0.25])
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, SLOPE)
                nn.init.zeros_(module.get_parameter("bias"))
            if name.startswith("predict_flow"):
                module.weight.mul_(0.1)
            if name.startswith("upsampled_flow"):
                module.weight.zero_()
                module.weight[(0, 1), (0, 1)] = torch.outer(line, line)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        """Compute the flow from ``first`` to ``second``, ``[B, 3, H, W]`` in 0..1, H and W multiples of 64.

        Returns the flow at 1/4, 1/8, 1/16, 1/32 and 1/64 of the resolution, starting with ``[B, 2, H/4, W/4]``, in units of
        20 pixels of the input. :func:`flow_between` converts it to pixels.
        """
        # The published network: values 0..255, subtract the mean of each channel over both pictures, divide by 255.
        mean = torch.stack((first, second)).mean((0, 3, 4), keepdim=True)[0]  # [B, 3, 1, 1]
        x = self.conv0(torch.cat((first - mean, second - mean), dim=1))
        x = self.conv1_1(self.conv1(x))
        seen2 = self.conv2_1(self.conv2(x))
        seen3 = self.conv3_1(self.conv3(seen2))
        seen4 = self.conv4_1(self.conv4(seen3))
        seen5 = self.conv5_1(self.conv5(seen4))
        x = self.conv6_1(self.conv6(seen5))
        flows = [self.predict_flow6(x)]
        for scale, seen in ((5, seen5), (4, seen4), (3, seen3), (2, seen2)):
            raised = self.get_submodule(f"deconv{scale}")(x)
            upsampled = self.get_submodule(f"upsampled_flow{scale + 1}_to_{scale}")(flows[0])
            x = torch.cat((seen, raised, upsampled), dim=1)
            refined = self.get_submodule(f"inter_conv{scale}")(x)
            flows.insert(0, self.get_submodule(f"predict_flow{scale}")(refined))
        return tuple(flow.float() for flow in flows)


def flow_between(net: FlowNetSD, first: Tensor, second: Tensor, enlarge: tuple[float, float] = (1, 1)) -> Tensor:
    """Compute the flow from ``first`` to ``second`` in pixels. It is differentiable with respect to both.

    Parameters
    ----------
    net: the network.
    first, second: float ``[B, C, H, W]`` in 0..1, C = 1 or 3, any size.
    enlarge: scale factors (height, width) of the network's input; larger inputs help to find small objects. Height and
        width are rounded up to multiples of 64.

    Returns
    -------
    float ``[B, 2, H, W]``: displacement to the right and downwards in pixels of the input.
    """
    first, second = (picture.expand(-1, 3, -1, -1) for picture in (first, second))
    return at_size(lambda a, b: net(a, b)[0] * FLOW_UNIT, first, second, seen_size(first.shape[2:], enlarge))


def seen_size(size: Sequence[int], enlarge: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the network's input for pictures of ``size``."""
    sides = (round(side * times) for side, times in zip(size, enlarge, strict=True))
    height, width = (-(-side // COARSEST) * COARSEST for side in sides)
    return height, width


def at_size(
    estimate: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor, inner: Sequence[int]
) -> Tensor:
    """Compute flow ``[B, 2, H, W]`` with pictures ``[B, C, H, W]`` resized to ``inner`` (height, width).

    The flow of ``estimate``, ``[B, 2, h, w]`` in pixels of the size ``inner``, is resized to H and W and scaled to pixels
    of that size.
    """
    height, width = first.shape[2:]
    if tuple(inner) != (height, width):
        first, second = (F.interpolate(p, tuple(inner), mode="bilinear", align_corners=False) for p in (first, second))
    flow = F.interpolate(estimate(first, second), (height, width), mode="bilinear", align_corners=False)
    return flow * flow.new_tensor((width / inner[1], height / inner[0])).view(2, 1, 1)


def save_flownet(net: FlowNetSD, path: Path | str, facts: dict | None = None) -> None:
    """Write the weights as a safetensors file in half precision.

    Half precision halves the file size and changes the flow less than training does. The metadata entry ``flownet`` holds
    the width and ``facts`` as JSON.
    """
    tensors = {key: value.detach().cpu().half().contiguous() for key, value in net.state_dict().items()}
    # Only one entry: safetensors writes several entries in any order, but equal weights must give equal files.
    metadata = {"flownet": json.dumps({"width": net.width, **(facts or {})})}
    with complete(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_flownet(path: Path | str) -> FlowNetSD:
    """Load a network on the CPU, in evaluation mode and with frozen parameters.

    ``path``: a ``*.safetensors`` file from :func:`save_flownet`. Any other name is read as the published checkpoint
    (``{"state_dict": ...}`` of width 1). Raises :class:`VadError` if the file is neither.
    """
    path = Path(path)
    if not path.is_file():
        raise VadError(f"{path}: no FlowNet weights here; train them, or name a file that exists")
    width, tensors = (
        _read_safetensors(path) if path.suffix == ".safetensors" else (PUBLISHED_WIDTH, _read_checkpoint(path))
    )
    net = FlowNetSD(width)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        reason = one_line(error)
        raise VadError(f"{path}: weights of another network than FlowNet2-SD of width {width} ({reason})") from error
    return net.eval().requires_grad_(False)


def _read_safetensors(path: Path) -> tuple[float, dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as stored:
            facts = stored.metadata() or {}
            tensors = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118, not a dict
    except SafetensorError as error:
        raise VadError(f"{path}: not a safetensors file ({error}); train it again or fetch it again") from error
    if "flownet" not in facts:
        raise VadError(f"{path}: not FlowNet weights of this project (no flownet in its metadata); train them")
    return json.loads(facts["flownet"])["width"], tensors


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load can raise any exception for other files
        raise VadError(
            f"{path}: not a checkpoint that loads without running code ({type(error).__name__}); if you trust it, save "
            "its state_dict alone: torch.save(torch.load(path, weights_only=False)['state_dict'], path)"
        ) from error
    tensors = stored.get("state_dict", stored) if isinstance(stored, dict) else None  # checkpoint or bare state dict
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise VadError(f"{path}: has no state_dict; name the published FlowNet2-SD checkpoint or one trained here")
    return tensors
