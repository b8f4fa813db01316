"""Sentences about a video that do not come from decoding it."""

from pathlib import Path

from vadcore.data.sampling import Subsampling
from vadcore.data.video_index import opened_video


def remarks_on(video: Path, sampling: Subsampling) -> list[str]:
    """Return sentences about a varying frame rate and about grey pixels of more than 8 bits, with the name of the file.

    Raises :class:`VadError` if the file is not a video.
    """
    return [f"{video.name}: {remark}" for remark in (sampling.remark, _deep_grey(video)) if remark]


def _deep_grey(video: Path) -> str | None:
    with opened_video(video) as (_, stream):
        form = stream.codec_context.format
        bits = max((component.bits for component in form.components), default=0) if form else 0
        if bits <= 8 or len(form.components) > 1:
            return None
        return (
            f"{bits}-bit grey ({form.name}): 0 to {2**bits - 1} become 0 to 255, so values in a small part of this range "
            "(thermal cameras) lose their contrast; save its frames as 16-bit pictures and set dataset.*.format: frames "
            "and pixel_range"
        )
