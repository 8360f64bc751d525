"""`verify` names every changed, missing or added byte; what is damaged is refused by name."""

import random
import shutil
from pathlib import Path

import pytest

from o3_lightning.common.errors import O3Error, StoreError
from o3_lightning.store import Store, verify_store
from o3_lightning.store.verify import check_record


def files_of(root):
    return sorted(path for path in root.rglob("*") if path.is_file() and path.name != ".lock")


def test_changed_bytes_of_small_files_are_named(store):
    for path in (store.path / "store.json", store.path / "requests/done/request.json"):
        good = path.read_bytes()
        for place in range(0, len(good), 3):
            path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            name = path.relative_to(store.path).as_posix()
            assert [text.split(":")[0] for text in verify_store(store.path)] == [name]
        path.write_bytes(good)
    assert verify_store(store.path) == []


def test_changed_bytes_of_the_journal_are_named_by_their_line(store):
    path = store.path / "journal.jsonl"
    good = path.read_bytes()
    for place in range(0, len(good), 29):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        line = good[:place].count(b"\n") + 1
        problems = verify_store(store.path)
        assert any(text.startswith(f"journal.jsonl:{line}:") for text in problems), (place, problems)
        with pytest.raises(StoreError, match=rf"journal.jsonl:{line}: "):
            Store.open(store.path)
    path.write_bytes(good)
    assert verify_store(store.path) == []


@pytest.mark.parametrize("kind", ["missing", "changed", "cut", "grown", "link"])
def test_every_damaged_file_is_named(store, kind):
    for path in files_of(store.path):
        good = path.read_bytes()
        if kind in ("missing", "link"):
            path.unlink()
        if kind == "link":
            path.symlink_to("/etc/hostname")
        elif kind != "missing":
            bad = {"changed": bytes([good[0] ^ 255]) + good[1:], "cut": good[:-1], "grown": good + b"\n"}[
                kind
            ]
            path.write_bytes(bad)
        name = path.relative_to(store.path).as_posix()
        if name == "journal.jsonl" and kind == "missing":
            with pytest.raises(StoreError, match=r"journal.jsonl: missing"):
                verify_store(store.path)
        else:
            assert any(text.startswith(name) for text in verify_store(store.path)), (name, kind)
        path.unlink(missing_ok=True)
        path.write_bytes(good)
        assert verify_store(store.path) == []


def test_added_files_and_folders_are_named(store):
    (store.path / "notes.txt").write_text("x")
    (store.path / "requests/done/extra.json").write_text("x")
    (store.path / "requests/ghost").mkdir()
    (store.path / ".hidden").write_text("x")
    named = {text.split(":")[0] for text in store.verify()}
    assert named == {"notes.txt", "requests/done/extra.json", "requests/ghost", ".hidden"}


@pytest.mark.parametrize("line", range(12))
def test_a_line_taken_out_of_the_journal_is_noticed(store, line):
    path = store.path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 11
    if line == 11:
        path.write_bytes(b"".join(lines) + lines[-1])
    else:
        path.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))
    problems = verify_store(store.path)
    assert problems
    if line < 10:
        assert f"journal.jsonl:{line + 1}: " in problems[0]
        with pytest.raises(StoreError):
            Store.open(store.path)


def test_damage_of_one_request_leaves_the_others_readable_and_can_be_removed(store):
    (store.path / "requests/done/adapter/adapter_config.json").write_text("{}")
    with pytest.raises(
        StoreError, match=r"requests/done/adapter/adapter_config.json: changed since it was written"
    ):
        store.adapter_folder("done")
    assert store.detector_folder("covered").is_dir()
    store.remove("done")
    assert store.verify() == []


def read_everything(path):
    """What a store holds, as far as it can be read, or the errors by which it was refused."""
    found = {}
    store = Store.open(path, "b" * 64, "e" * 64)
    for record in store.records():
        found[record.id] = record
        for part, folder in (("detector", store.detector_folder), ("adapter", store.adapter_folder)):
            try:
                root = folder(record.id)
                found[record.id, part] = {p.name: p.read_bytes() for p in root.iterdir() if p.is_file()}
            except O3Error as error:
                found[record.id, part] = str(error)
    return found


def damage(path: Path, randomness):
    """Flips, cuts, grows, deletes, swaps or links files, one to three times."""
    for _ in range(randomness.randint(1, 3)):
        files = files_of(path)
        if not files:
            return
        victim, other = randomness.choice(files), randomness.choice(files)
        data = victim.read_bytes()
        kind = randomness.choice(["flip", "flip", "cut", "grow", "delete", "swap", "folder", "garbage"])
        if kind == "flip" and data:
            place = randomness.randrange(len(data))
            victim.write_bytes(
                data[:place] + bytes([data[place] ^ (1 << randomness.randrange(8))]) + data[place + 1 :]
            )
        elif kind == "cut":
            victim.write_bytes(data[: randomness.randrange(len(data) + 1)])
        elif kind == "grow":
            victim.write_bytes(data + randomness.randbytes(randomness.randint(1, 40)))
        elif kind == "garbage":
            victim.write_bytes(
                randomness.choice([b"", b"[" * 5000, b"null", b"\xff\xfe", b'{"format": 1e999}', b"0\n"])
            )
        elif kind == "swap":
            victim.write_bytes(other.read_bytes())
            other.write_bytes(data)
        else:
            victim.unlink()
            if kind == "folder":
                victim.mkdir()


def attempt(action, path):
    """What an action gives, or the text of the error that a user would see."""
    try:
        return action(path), None
    except O3Error as error:
        return None, str(error)


def check_fuzzed_stores(tmp_path, kit, count, seed):
    good = kit.fill(tmp_path / "good").path
    truth = read_everything(good)
    contents = {path.relative_to(good): path.read_bytes() for path in files_of(good)}
    randomness, refused = random.Random(seed), 0
    for number in range(count):
        trial = tmp_path / "trial"
        shutil.copytree(good, trial)
        damage(trial, randomness)
        changed = contents != {path.relative_to(trial): path.read_bytes() for path in files_of(trial)}
        found, refusal = attempt(read_everything, trial)
        if refusal is None:
            for key, value in found.items():
                assert value == truth[key] or "requests" in str(value), (number, key)
        else:
            refused += 1
            assert str(trial) in refusal, number
            assert "\n" not in refusal, number
        problems, refusal = attempt(verify_store, trial)
        assert bool(problems) == changed if refusal is None else str(trial) in refusal, number
        shutil.rmtree(trial)
    assert refused > count / 4


def test_fuzzed_stores_are_refused_by_name_or_read_correctly(tmp_path, kit):
    check_fuzzed_stores(tmp_path, kit, 60, seed=1)


@pytest.mark.slow
def test_a_thousand_fuzzed_stores(tmp_path, kit):
    check_fuzzed_stores(tmp_path, kit, 1000, seed=2)


def test_a_record_that_speaks_of_another_request_is_named(store):
    folder = store.path / "requests/other"
    folder.mkdir()
    shutil.copy(store.path / "requests/done/request.json", folder)
    assert list(check_record(folder / "request.json")) == ["other/request.json: speaks of request 'done'"]
    assert list(check_record(store.path / "requests/done/request.json")) == []
