"""The base model of a run, opened as its store records; imports nothing that only training needs."""

from pathlib import Path

from o3_lightning.models.base import BaseModel, load_base
from o3_lightning.models.settings import check_settings, with_recorded_date
from o3_lightning.run.config import RunConfig
from o3_lightning.store.view import read_settings


def load_base_for(store: Path, config: RunConfig) -> BaseModel:
    """Returns the base model that a configuration names, at the date that a store records for its template.

    Raises:
        InputError: the model cannot be loaded, or the store was made with other settings of it.
    """
    recorded = read_settings(store)
    base = load_base(with_recorded_date(config.base, recorded), config.seed)
    check_settings(recorded, base.settings)
    return base
