"""Hypothesis settings of the unit tests: same examples in every run, no time limit. Places that several tests share."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.tiny_systems import TINY, WITH_FLOW
from tests.helpers.videos import Place

settings.register_profile(
    "unit", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")


@pytest.fixture(scope="session")
def place_of(tmp_path_factory) -> Callable[..., Place]:
    """``place_of(model, **options)``: a :class:`Place`, made once for the same arguments. Tests do not change it."""
    made: dict[tuple, Place] = {}

    def place_of(model: str, **options) -> Place:
        key = (model, *sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp(f"place-{model}")
            made[key] = Place(folder, model, TINY[model], flow=model in WITH_FLOW, **options)
        return made[key]

    return place_of


@pytest.fixture(scope="session")
def here(place_of) -> Place:
    """A place with the quickest system."""
    return place_of("frame_diff")
