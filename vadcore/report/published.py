"""Published frame-level AUC figures of other systems, shown next to ours for comparison and never as ours."""

from __future__ import annotations

from dataclasses import dataclass

NOTE = (
    "Figures from the cited papers, not run here. Micro AUC: the frames of all clips pooled, after what the column protocol "
    "says (empty: not known here), often with the check point chosen on the test set. The nearest column of ours is "
    "“micro, per-clip min-max”; differences in protocol can outweigh differences between systems."
)


@dataclass(frozen=True)
class Published:
    """One published system.

    ``auc``: frame-level AUC in percent per data set (``ped1``, ``ped2``, ``avenue``, ``shanghaitech``).
    """

    system: str
    source: str
    auc: dict[str, float]
    protocol: str = ""  # post-processing of its scores before pooling, according to its paper; empty: unknown
    needs: str = ""  # what it requires beyond the footage, e.g. a pretrained detector
    ours: str = ""  # name of our implementation of it

    def is_of(self, model: str) -> bool:
        """Return whether our ``model`` is this system or a variant of it."""
        return bool(self.ours) and model.partition("-")[0] == self.ours


STRETCHED = "per-clip min-max"
SMOOTHED = "smoothed over time"

PUBLISHED = (
    Published(
        "Conv-AE", "Hasan et al., CVPR 2016", {"ped1": 81.0, "ped2": 90.0, "avenue": 70.2}, STRETCHED, ours="conv_ae"
    ),
    Published(
        "ConvLSTM-AE",
        "Chong & Tay, ISNN 2017",
        {"ped1": 89.9, "ped2": 87.4, "avenue": 80.3},
        STRETCHED,
        ours="convlstm_ae",
    ),
    Published("STAE (3D conv)", "Zhao et al., ACM MM 2017", {"ped1": 92.3, "ped2": 91.2, "avenue": 77.1}, STRETCHED),
    Published(
        "Future frame",
        "Liu et al., CVPR 2018",
        {"ped1": 83.1, "ped2": 95.4, "avenue": 85.1, "shanghaitech": 72.8},
        STRETCHED,
        ours="future_frame",
    ),
    Published("Conv-VRNN", "Lu et al., AVSS 2019", {"ped2": 96.1, "avenue": 85.8}, STRETCHED),
    Published("MemAE", "Gong et al., ICCV 2019", {"ped2": 94.1, "avenue": 83.3, "shanghaitech": 71.2}, STRETCHED),
    Published("MNAD", "Park et al., CVPR 2020", {"ped2": 97.0, "avenue": 88.5, "shanghaitech": 70.5}, STRETCHED),
    Published(
        "HF2-VAD", "Liu et al., ICCV 2021", {"ped2": 99.3, "avenue": 91.1, "shanghaitech": 76.2}, needs="detector"
    ),
    Published(
        "AI-VAD",
        "Reiss & Hoshen, 2022",
        {"ped2": 99.1, "avenue": 93.3, "shanghaitech": 85.9},
        SMOOTHED,
        needs="detector, pose",
    ),
    Published("SD-MAE", "Ristea et al., CVPR 2024", {"ped2": 95.4, "avenue": 91.3, "shanghaitech": 79.1}, SMOOTHED),
    Published(
        "MULDE",
        "Micorek et al., CVPR 2024",
        {"ped2": 99.7, "avenue": 94.3, "shanghaitech": 86.7},
        SMOOTHED,
        needs="detector",
    ),
)


def followed(known: str | None, model: str) -> list[Published]:
    """Return the published systems that ``model`` implements and that have a figure on ``known``. None for variants."""
    return [entry for entry in PUBLISHED if known in entry.auc and entry.ours == model]


def known_data_set(name: str) -> str | None:
    """Return the published data set that a configured name begins with, or None for other footage."""
    for known in ("ped1", "ped2", "avenue", "shanghaitech"):
        if name.lower().startswith(known):
            return known
    return None
