from o3_lightning.detector.text.frequencies import read_lists, word_information


def test_word_lists_are_read_once_and_again_where_the_copy_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("O3_CACHE", str(tmp_path))
    read = word_information.__wrapped__
    expected = read_lists()
    assert read() == expected
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()
    assert read() == expected
    path.write_bytes(written[:-9])
    assert read() == expected
    assert path.read_bytes() == written


def test_word_lists_need_no_folder_that_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("O3_CACHE", str(tmp_path / "file"))
    assert word_information.__wrapped__()["the"] < 4
