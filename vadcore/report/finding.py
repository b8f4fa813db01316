"""Check a finding of two articles, made there by visual inspection, against the figures of a run.

The articles compare a GRU autoencoder, which encodes every frame as a latent point, with a 3D-CNN autoencoder, which
encodes the whole clip as one latent point. They find that the GRU's pictures are clearly sharper after the same number
of iterations of the same training.
"""

from __future__ import annotations

from vadcore.report.checkpoints import MEASURES, CheckPoints

SHARPER, LESS_SHARP = "gru_ae", "conv3d_ae"
ALIKE = ("image_size", "color", "frames", "batch_size", "learning_rate", "shift")  # must be equal; both use Adam


def finding(known: list[CheckPoints], iterations: list[int]) -> str | None:
    """Return one sentence on whether the finding holds.

    None unless both systems are present, were trained with equal settings (:data:`ALIKE`) and share an iteration.

    The finding holds at an iteration if, in figures as printed, the GRU's sharpness and SSIM are higher than those of
    the 3D-CNN and its PSNR is at least equal.
    """
    by_name = {points.model: points for points in known}
    if not {SHARPER, LESS_SHARP} <= by_name.keys():
        return None
    ours, other = by_name[SHARPER], by_name[LESS_SHARP]
    if any(ours.system.settings.get(key) != other.system.settings.get(key) for key in ALIKE):
        return None
    shared = [at for at in iterations if all(at in points.table.index for points in (ours, other))]
    if not shared:
        return None
    held = [at for at in shared if _holds(ours, other, at)]
    if held == shared:
        answer = "holds at every one of these iterations"
    elif held:
        answer = f"holds at {', '.join(f'{at:,}' for at in held)} only"
    else:
        answer = "does not hold at any of these iterations"
    return (
        f"The finding of two articles, that {SHARPER} is clearly sharper than {LESS_SHARP} after equally many iterations, "
        f"{answer} (meant: higher sharpness and SSIM, and no lower PSNR)."
    )


def _holds(ours: CheckPoints, other: CheckPoints, iteration: int) -> bool:
    ahead = {}
    for measure in MEASURES:
        mine, theirs = ours.value(measure, iteration), other.value(measure, iteration)
        if mine is None or theirs is None:
            return False
        ahead[measure.key] = float(measure.write(mine)) - float(measure.write(theirs))
    return ahead["sharpness"] > 0 and ahead["ssim"] > 0 and ahead["psnr"] >= 0
