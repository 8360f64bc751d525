"""Curves of several fits in one run: the step only rises, names carry the stage."""

import csv

import pytest

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.training import FitTask, train_adapter
from o3_lightning.common.errors import InputError
from o3_lightning.objectives.config import ObjectiveConfig
from o3_lightning.training.config import LoggingConfig
from o3_lightning.training.loggers import RunLogger
from o3_lightning.training.trainer import build_trainer


def read_steps(folder):
    rows = []
    for path in sorted(folder.glob("csv/version_*/metrics.csv")):
        with path.open(newline="") as stream:
            rows += list(csv.DictReader(stream))
    return rows


def test_steps_rise_over_fits_and_over_a_restart(tmp_path, tiny_base, tiny_request):
    config = AdapterConfig(rank=2, epochs=2, batch_size=4)
    for start in range(2):
        run = RunLogger.open(LoggingConfig(), tmp_path)
        for name in ("one", "two"):
            stage = run.stage(f"{name}_{start}/adapter")
            trainer = build_trainer({"accelerator": "cpu"}, max_epochs=2, logger=stage)
            train_adapter(
                FitTask(tiny_base, tiny_request, AdapterHistory(), config, ObjectiveConfig(), trainer, 0)
            )
        run.close()
    rows = read_steps(tmp_path)
    assert [int(row["step"]) for row in rows] == list(range(16))
    assert rows[0]["one_0/adapter/loss"]
    assert not rows[0].get("two_0/adapter/loss")


def test_bad_options_are_one_line():
    with pytest.raises(InputError, match="trainer") as caught:
        build_trainer({"accelerator": "abacus"}, max_epochs=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"logging\.wandb_mode"):
        LoggingConfig(wandb_mode="perhaps")


def test_options_have_the_last_word():
    assert build_trainer({"accelerator": "cpu", "max_epochs": 3}, max_epochs=1).max_epochs == 3
    assert build_trainer({"accelerator": "cpu", "max_epochs": None}, max_epochs=1).max_epochs == 1
