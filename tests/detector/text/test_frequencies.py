import pytest

from o3_lightning.detector.text import frequencies
from o3_lightning.detector.text.frequencies import word_information


@pytest.fixture(scope="module")
def lists():
    """The words of the package, which take seconds to read."""
    return frequencies.read_lists()


@pytest.fixture
def reads(lists, monkeypatch):
    """One entry for each time that the lists are read from the package."""
    read = []
    monkeypatch.setattr(frequencies, "read_lists", lambda: read.append(1) or lists)
    return read


def test_word_lists_are_read_once_and_again_where_the_copy_is_damaged(lists, reads, tmp_path, monkeypatch):
    monkeypatch.setenv("O3_CACHE", str(tmp_path))
    read = word_information.__wrapped__
    assert read() == lists
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()
    assert read() == lists
    assert len(reads) == 1
    path.write_bytes(written[:-9])
    assert read() == lists
    assert len(reads) == 2
    assert path.read_bytes() == written


def test_word_lists_need_no_folder_that_can_be_written(reads, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("O3_CACHE", str(tmp_path / "file"))
    assert word_information.__wrapped__()["the"] < 4
    assert reads
