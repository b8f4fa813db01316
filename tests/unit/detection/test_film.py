"""The annotated video and the timeline of a video's results."""

import cv2
import numpy as np
import pytest

from tests.helpers.videos import make_video
from vadcore.detection.film import BAR, clock, film_counts, film_size, interval_maxima
from vadcore.detection.output import detect
from vadcore.evaluation.maps import Maps, colour_scale

pytestmark = pytest.mark.xdist_group("results")


@pytest.fixture(scope="module")
def made(here, tmp_path_factory):
    return detect(here.detector(), here.video, tmp_path_factory.mktemp("out"))


def pictures_of(video) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(video)), []
    while (read := capture.read())[0]:
        found.append(read[1])
    return found


def test_film_shows_heat_and_event_bar(made, here):
    film = pictures_of(made.folder / "annotated.webm")
    height, width = film_size((48, 64))
    assert (height, width) == (240, 320)
    assert len(film) == 80
    assert film[0].shape == (height + BAR, width, 3)
    event = made.events[0]
    red = [int(picture[height + 4 :, width // 2 :, 2].mean()) for picture in film]
    lasts = np.arange(event["start_frame"], event["end_frame"] + 1)
    assert min(np.array(red)[lasts]) > 150
    assert max(np.delete(red, lasts)) < 100
    peak, source = event["peak_frame"], pictures_of(here.video)
    plain = cv2.resize(source[peak], (width, height), interpolation=cv2.INTER_NEAREST)
    changed = np.abs(film[peak][:height].astype(int) - plain).mean(-1)
    x, y, w, h = (event["box"][side] * 5 for side in ("x", "y", "width", "height"))
    assert changed[y : y + h, x : x + w].mean() > 4 * changed[:, : x - 20].mean()


def test_film_plays_in_real_time():
    assert film_counts(np.arange(7) / 10, 10.0, 1).tolist() == [1] * 7
    assert film_counts(np.arange(7) / 25, 25.0, 2).tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert film_counts(np.array([0, 0.12, 0.2, 0.32, 0.4, 0.52, 0.6]), 10.0, 1).tolist() == [1] * 7  # 25 to 10 a second
    # 5 frames at 5 a second, 10 at 25 a second, a pause: 1.4 s and the last frame at 12.5 pictures a second
    seconds = np.concatenate((np.arange(5) / 5, 1 + np.arange(10) / 25, [61.0]))
    counts = film_counts(seconds, 25.0, 2)
    assert 12 <= counts[:5].sum() <= 13
    assert counts.sum() == 18


def test_film_size():
    assert film_size((360, 480)) == (360, 480)
    assert film_size((1080, 1920)) == (270, 480)
    assert film_size((127, 191)) == (254, 382)
    assert film_size((1, 3000)) == (2, 480)
    assert film_size((1920, 1080)) == (854, 480)
    assert film_size((1500, 2)) == (1200, 2)


def test_film_of_extreme_shape(here, tmp_path):
    video = make_video(tmp_path / "slit.avi", 4, size=(1500, 2), runs=None)
    found = detect(here.detector(), video, tmp_path / "out")
    assert pictures_of(found.folder / "annotated.webm")[0].shape == (1200 + BAR, 2, 3)


def test_film_frame_rate(here, tmp_path):
    """Its length in seconds is that of the video."""
    video = make_video(tmp_path / "fast.avi", 31, fps=40)
    found = detect(here.detector(fps=40), video, tmp_path)
    assert found.about["scored_fps"] == 40
    film = cv2.VideoCapture(str(found.folder / "annotated.webm"))
    assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(40 / 3, rel=0.01)
    assert len(pictures_of(found.folder / "annotated.webm")) == 11


def test_heat_scale_comes_from_usual_frames(tmp_path):
    """A video without events stays dark."""
    maps = Maps(tmp_path / "maps")
    rng = np.random.default_rng(0)
    maps.append(rng.random((300, 12, 16)).astype(np.float16))
    low, high = colour_scale(maps, np.ones(300, bool))
    assert high >= 3 * low
    assert low > 0.5
    busy = np.zeros(20, bool)
    maps.append(np.full((20, 12, 16), 50, np.float16))
    low, high = colour_scale(maps, np.append(np.ones(300, bool), busy))
    assert low < 1 < 40 < high


def test_timeline_picture_shows_the_event(made):
    picture = cv2.imread(str(made.folder / "timeline.png"))
    assert picture.shape[1] > 1000
    red = (picture[..., 2].astype(int) - picture[..., 0]) > 30  # the event's stretch and the threshold
    assert red.mean() > 0.02


def test_long_timeline_keeps_peaks():
    scores = np.full(100_000, 1.0)
    scores[77_777] = 9.0
    scores[:500] = np.nan
    seconds, shown = interval_maxima(np.arange(100_000) / 25, scores)
    assert len(shown) <= 1500
    assert np.nanmax(shown) == 9.0
    assert seconds[np.nanargmax(shown)] == pytest.approx(77_777 / 25, abs=3)
    assert np.isnan(shown[0])


def test_times_are_formatted_like_a_clock():
    assert [clock(s) for s in (0, 59.9, 61, 3600, 36_610)] == ["0:00", "0:59", "1:01", "1:00:00", "10:10:10"]
