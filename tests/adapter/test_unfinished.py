"""A fit that is stopped by a signal and started again ends with the bits of one that was left alone."""

import signal

import pytest
import torch
from lightning import Callback

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.training import FitTask, train_adapter
from o3_lightning.adapter.unfinished import FitStopped, StepKeeper
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.objectives.config import ForgetObjective, ObjectiveConfig, RetainObjective
from o3_lightning.training.trainer import build_trainer

# dropout draws from torch's generator, the retained rows from one of their own
CONFIG = AdapterConfig(rank=2, epochs=3, batch_size=3, learning_rate=1e-2, dropout=0.1)
OBJECTIVE = ObjectiveConfig(ForgetObjective("npo"), RetainObjective("kl"))
KEPT = [QuestionAnswer(f"What do bees make in {n}?", "Honey") for n in range(5)]
BATCHES = 9  # three epochs of three


class Terminate(Callback):
    """Sends a signal to this process within a step, and counts the batches."""

    def __init__(self, step, number):
        self.step, self.number, self.batches = step, number, 0

    def on_train_batch_start(self, trainer, *_):
        self.batches += 1
        if trainer.global_step == self.step:
            signal.raise_signal(self.number)  # to this thread: it has been heard when this returns


def start(base, request, path, *, stop=None, number=signal.SIGTERM, batches=None, seed=3, **options):
    watch = Terminate(stop, number)
    options = {"accelerator": "cpu", "callbacks": [watch], **options}
    trainer = build_trainer(options, max_epochs=CONFIG.epochs)
    trained = train_adapter(
        FitTask(base, request, AdapterHistory(), CONFIG, OBJECTIVE, trainer, seed, KEPT, path)
    )
    assert watch.batches == (BATCHES if batches is None else batches)
    return trained


@pytest.fixture(scope="module")
def calm(kept_base, tiny_request):
    """A fit that was left alone."""
    return start(kept_base, tiny_request, None)


def assert_same(found, expected):
    assert list(found.curve) == list(expected.curve)
    for path, pair in expected.factors.pairs.items():
        assert all(map(torch.equal, found.factors.pairs[path], pair))


@pytest.mark.parametrize("stops", [(0,), (2,), (4, 1), (8,)])
def test_a_stopped_fit_goes_on_with_the_same_bits(stops, calm, kept_base, tiny_request, tmp_path):
    path, handler = tmp_path / "a.safetensors", signal.getsignal(signal.SIGTERM)
    for stop in stops:
        with pytest.raises(FitStopped) as exit_:
            start(kept_base, tiny_request, path, stop=stop)
        assert exit_.value.code == 143
        assert path.is_file()
        assert signal.getsignal(signal.SIGTERM) == handler
    left = BATCHES - sum(stop + 1 for stop in stops)
    assert_same(start(kept_base, tiny_request, path, batches=left), calm)


def test_ctrl_c_keeps_the_progress(calm, kept_base, tiny_request, tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        path = tmp_path / "a.safetensors"
        with pytest.raises(FitStopped) as exit_:
            start(kept_base, tiny_request, path, stop=4, number=signal.SIGINT)
        assert exit_.value.code == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert_same(start(kept_base, tiny_request, path, batches=BATCHES - 5), calm)


def test_several_batches_a_step_are_never_cut(kept_base, tiny_request, tmp_path):
    together = {"accumulate_grad_batches": 2}
    calm = start(kept_base, tiny_request, None, **together)
    path = tmp_path / "a.safetensors"
    with pytest.raises(FitStopped):
        start(kept_base, tiny_request, path, stop=1, **together)
    resumed = start(kept_base, tiny_request, path, batches=6, **together)
    assert_same(resumed, calm)
    assert resumed.metrics["steps"] == calm.metrics["steps"] == 6  # two an epoch


def test_a_kill_without_warning_loses_what_came_after_the_last_write(
    calm, kept_base, tiny_request, tmp_path, monkeypatch
):
    path = tmp_path / "a.safetensors"
    write, written = StepKeeper.write, []

    def write_and_die(self, *arguments):
        write(self, *arguments)
        written.append(self.steps)
        if len(written) == 2:
            raise RuntimeError("power is gone")

    monkeypatch.setattr(StepKeeper, "write", write_and_die)
    monkeypatch.setattr("o3_lightning.adapter.unfinished.SECONDS_BETWEEN", 0.0)
    with pytest.raises(RuntimeError):
        start(kept_base, tiny_request, path)
    monkeypatch.undo()
    assert written == [1, 2]
    assert_same(start(kept_base, tiny_request, path, batches=BATCHES - 2), calm)


def test_seconds_count_those_of_every_start(kept_base, tiny_request, tmp_path, monkeypatch):
    path, slow = tmp_path / "a.safetensors", 1000.0
    real = StepKeeper.write

    def late(self, *arguments):
        self.begun -= slow  # as if each start had taken so long before it was stopped
        real(self, *arguments)

    monkeypatch.setattr(StepKeeper, "write", late)
    for stop in (1, 1):
        with pytest.raises(FitStopped):
            start(kept_base, tiny_request, path, stop=stop)
    spent = start(kept_base, tiny_request, path, batches=BATCHES - 4).metrics["seconds"]
    assert 2 * slow < spent < 3 * slow


def test_what_another_fit_has_kept_is_not_taken(calm, kept_base, tiny_request, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(FitStopped):
        start(kept_base, tiny_request, path, stop=4, seed=4)
    assert_same(start(kept_base, tiny_request, path), calm)


def test_a_damaged_file_is_told_and_not_taken(calm, kept_base, tiny_request, tmp_path, caplog):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"not tensors")
    assert_same(start(kept_base, tiny_request, path), calm)
    assert "cannot be read" in caplog.text


def test_a_limit_of_steps_counts_those_of_both_starts(kept_base, tiny_request, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(FitStopped):
        start(kept_base, tiny_request, path, stop=2, batches=3, max_steps=7)
    assert len(start(kept_base, tiny_request, path, batches=4, max_steps=7).curve) == 7
