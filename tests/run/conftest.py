"""Runs on a tiny model: what is loaded and built once for all of them."""

import functools

import pytest

import o3_lightning.run.inputs as inputs_module
from o3_lightning.commands import common
from o3_lightning.run import recorded_base


@pytest.fixture(scope="module", autouse=True)
def _one_parser():
    """The parser of a run's fields takes longer to build than a file to read, and no test changes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "config_parser", functools.cache(common.config_parser))
        yield


@pytest.fixture(scope="module")
def loaded(tiny_base, remembering_encoder):
    """Every run finds its model and its encoder in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded_base, "load_base", lambda config, seed: tiny_base)
        patch.setattr("o3_lightning.models.base.load_base", lambda config, seed: tiny_base)
        patch.setattr(inputs_module, "load_configured_encoder", lambda config: remembering_encoder)
        yield
