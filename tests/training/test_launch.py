"""How many processes a trainer's devices ask for."""

import pytest

from o3_lightning.common.errors import InputError
from o3_lightning.training.launch import processes_wanted


@pytest.mark.parametrize(("devices", "count"), [(1, 1), ("2", 2), ([0, 1, 2], 3), (0, 1)])
def test_one_process_a_device(devices, count):
    assert processes_wanted({"devices": devices, "accelerator": "cpu"}) == count


@pytest.mark.parametrize(
    ("devices", "message"),
    [(100_000, "expected at most"), (float("nan"), "expected a number"), (float("inf"), "expected a number")],
)
def test_what_cannot_run_here_is_refused(devices, message):
    with pytest.raises(InputError, match=f"field 'trainer.devices': {message}"):
        processes_wanted({"devices": devices})
