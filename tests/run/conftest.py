"""Runs on a tiny model: what is loaded and built once for all of them."""

import pytest

import o3_lightning.run.inputs as inputs_module
from o3_lightning.run import recorded_base


@pytest.fixture(scope="module")
def loaded(tiny_base, remembering_encoder):
    """Every run finds its model and its encoder in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded_base, "load_base", lambda config, seed: tiny_base)
        patch.setattr("o3_lightning.models.base.load_base", lambda config, seed: tiny_base)
        patch.setattr(inputs_module, "load_configured_encoder", lambda config: remembering_encoder)
        yield
