"""The run folder: stages are done once, and a folder belongs to one configuration and one process."""

import pytest
from filelock import FileLock

from o3_lightning.common.errors import InputError
from o3_lightning.training.run_folder import RunFolder


def test_a_stage_is_done_once(tmp_path):
    folder, calls = RunFolder(tmp_path), []
    for _ in range(2):
        result = folder.stage("one", lambda: calls.append(1) or {"value": 7})
    assert calls == [1]
    assert result["value"] == 7
    assert result["seconds"] >= 0


@pytest.mark.parametrize("content", ["{", "5", "[1]", "\udcff"])
def test_a_damaged_result_is_told(content, tmp_path):
    folder = RunFolder(tmp_path)
    folder.stage("fit", lambda: {})
    (tmp_path / "stages/fit.json").write_bytes(content.encode(errors="surrogateescape"))
    for read in (folder.results, lambda: folder.stage("fit", lambda: {})):
        with pytest.raises(InputError, match=r"fit\.json: (is not JSON|expected a JSON object)"):
            read()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"file/run: cannot be written: "),
        RunFolder(tmp_path / "file/run").claim({}),
    ):
        pass


def test_a_stage_that_fails_leaves_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(ZeroDivisionError):
        folder.stage("one", lambda: {"value": 1 / 0})
    assert folder.results() == {}


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.claim({"seed": 0, "adapter": {"rank": 8}}):
        pass
    with (
        pytest.raises(InputError, match=r"another configuration \(adapter.rank is 8 there, 4 now\)"),
        folder.claim({"seed": 0, "adapter": {"rank": 4}}),
    ):
        pass


def test_a_field_is_neither_new_nor_missing(tmp_path):
    (tmp_path / "config.yaml").write_text("adapter: {rank: 4}\n")
    for changed in ({"rank": 4, "dropout": 0.5}, {"dropout": 0.0}):
        with pytest.raises(InputError, match="absent"), RunFolder(tmp_path).claim({"adapter": changed}):
            pass


@pytest.mark.parametrize("content", ["- a list", "a: [", "", "a: 1\na: 2"])
def test_a_damaged_configuration_is_told(content, tmp_path):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(InputError, match=r"config\.yaml: "), RunFolder(tmp_path).claim({"seed": 0}):
        pass


def test_logging_may_change_between_starts(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.claim({"seed": 0, "logging": {"wandb": False}}):
        pass
    with folder.claim({"seed": 0, "logging": {"wandb": True}}):
        pass


def test_a_second_process_is_refused(tmp_path):
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(InputError, match="another process"),
        RunFolder(tmp_path).claim({"seed": 0}),
    ):
        pass


@pytest.mark.parametrize("field", ["seed", "name", "data", "base", "gate", "evaluation", "refuse_only"])
def test_every_field_that_decides_the_outcome_binds_the_folder(field, tmp_path):
    folder = RunFolder(tmp_path)
    with folder.claim({field: 0}):
        pass
    with pytest.raises(InputError, match=f"{field} is 0 there, 1 now"), folder.claim({field: 1}):
        pass


def test_a_field_that_is_new_and_empty_does_not_bind_an_older_folder(tmp_path):
    for start in ({"seed": 0}, {"seed": 0, "baseline": ""}):
        with RunFolder(tmp_path).claim(start):
            pass
    with (
        pytest.raises(InputError, match="baseline"),
        RunFolder(tmp_path).claim({"seed": 0, "baseline": "rules"}),
    ):
        pass


@pytest.mark.parametrize("field", ["logging", "output", "take_over"])
def test_a_field_that_decides_nothing_may_change_or_be_new(field, tmp_path):
    folder = RunFolder(tmp_path)
    for start in ({"seed": 0}, {"seed": 0, field: "a"}, {"seed": 0, field: ""}):
        with folder.claim(start):
            pass
