"""Seeded damage to every file that may come from a stranger: refused by name in one line, or harmless."""

import json
import random
import shutil
import signal
import struct

import pytest
import torch
import yaml

from o3_lightning.common.errors import O3Error
from o3_lightning.common.files import digest_bytes, read_result, write_atomically, write_json
from o3_lightning.common.yaml import read_mapping
from o3_lightning.data.requests import read_requests
from o3_lightning.detector.answers import AnswerState, fit_answers
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.detector import Detector, fit_detector
from o3_lightning.models.base import load_base
from o3_lightning.models.config import BaseConfig
from o3_lightning.models.lora import LoraFactors
from o3_lightning.serving.audit import AuditLog, summarise
from o3_lightning.store import Store

SECONDS = 10
PROMPTS = ["Where does Kim Zebrask live?", "Who wrote The Marsh of Quell?", "When was Kim Zebrask born?"] * 3
ANSWERS = ["In Quellorhaven", "Kim Zebrask wrote it", "In 1957"] * 3
VALUES = (None, True, -1, 0, 1.5, 10**30, "", "x", "\0", "\ud800", [], {}, [[]], {"a": 1},
          "../../etc/passwd", float("nan"), float("inf"), -(10**400), ["x"] * 3, "a" * 5000)  # fmt: skip
DEEP = ("[" * 100_000, '{"a":' * 50_000, "[" * 900 + "]" * 900, "1" * 100_000, '"' + "\\u0000" * 1000 + '"',
        "NaN", "{}", "[]", "null", "", " ", "{", '{"a": 1, "a": 2}', "\ufeff{}")  # fmt: skip
DTYPES = ("F32", "F64", "F16", "BF16", "I64", "I8", "BOOL", "F8_E4M3", "F4", "C64", "X", "")


def damage_bytes(content, draw):
    """Any file with bytes that were cut off, changed or added."""
    place = draw.randrange(len(content) + 1)
    return draw.choice((
        content[:place],
        content[place:],
        content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :],
        content[:place] + draw.randbytes(draw.randint(1, 64)) + content[place:],
        content + bytes(draw.randint(1, 4096)),
        b"",
        draw.randbytes(200),
        content * 2,
    ))  # fmt: skip


def damage_value(value, draw):
    """A JSON value in which one part, at any depth, was replaced, dropped or added."""
    inner = [key for key, part in value.items() if part] if isinstance(value, dict) else []
    if not isinstance(value, dict) or not inner or draw.random() < 0.35:
        return draw.choice(VALUES)
    key = draw.choice(sorted(value))
    changed = dict(value)
    what = draw.random()
    if what < 0.15:
        del changed[key]
    elif what < 0.25:
        changed[draw.choice(("", "x", "__class__", "auto_map", "\0", "a" * 1000))] = draw.choice(VALUES)
    else:
        changed[key] = damage_value(value[key], draw)
    return changed


def damage_json(content, draw):
    """A JSON file that is none, or that says something else."""
    if draw.random() < 0.25:
        return draw.choice(DEEP).encode(errors="surrogatepass")
    return json.dumps(damage_value(json.loads(content), draw), allow_nan=True).encode()


def damage_header(content, draw):
    """Tensors whose header lies about sizes, types, places or its own length."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    what = draw.randrange(7)
    names = [name for name in header if name != "__metadata__"]
    if not names:
        return damage_bytes(content, draw)
    entry = header[draw.choice(names)]
    if what == 0:
        wrong = draw.choice(
            (0, 1, length - 1, length + 1, len(content), 2**31, 2**63, 2**64 - 1, 100_000_001)
        )
        return struct.pack("<Q", wrong) + content[8:]
    if what == 1:
        entry["shape"] = draw.choice(
            ([], [0], [-1], [2**62, 4], [2**32, 2**32], [10**30], "x", [1.5], None, [1] * 5000)
        )
    elif what == 2:
        entry["data_offsets"] = draw.choice(
            ([0, 2**63], [8, 0], [-4, 4], [0], [0, len(data) + 1], None, ["a", 1], [0, 0])
        )
    elif what == 3:
        entry["dtype"] = draw.choice((*DTYPES, None, 7))
    elif what == 4:
        header[draw.choice(("", "x" * 10_000, "\0", "a.b", "base_model.model.q.lora_A.weight"))] = dict(entry)
    elif what == 5:
        header["__metadata__"] = draw.choice(VALUES[:14])
    else:
        del header[draw.choice(names)]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def damage(path, draw):
    """Writes something else into a file."""
    content = path.read_bytes()
    structured = {".json": damage_json, ".safetensors": damage_header}.get(path.suffix, damage_bytes)
    changed = structured if draw.random() < 0.75 else damage_bytes
    path.write_bytes(changed(content, draw))


def truthful(folder):
    """Gives a detector's JSON the digest of its tensors, as one who made both would."""
    try:
        described = json.loads((folder / "detector.json").read_bytes())
        described["tensors_sha256"] = digest_bytes((folder / "detector.safetensors").read_bytes())
    except (ValueError, TypeError, RecursionError):
        return
    (folder / "detector.json").write_text(json.dumps(described))


def read_detector(folder):
    truthful(folder)
    Detector.load(folder)


def read_store(folder):
    store = Store.open(folder)
    store.records()
    store.gated()
    store.verify()


def read_adapter(folder):
    for a, b in LoraFactors.load(folder).folded().values():
        assert a.isfinite().all()
        assert b.isfinite().all()


def read_model(folder):
    base = load_base(BaseConfig(id=str(folder)))
    assert base.context_tokens > 0


def only(name, read):
    return lambda folder: read(folder / name)


READERS = {
    "adapter": read_adapter,
    "detector": read_detector,
    "answers": AnswerState.load,
    "store": read_store,
    "result": only("metrics.json", read_result),
    "requests": only("forget.jsonl", read_requests),
    "config": only("config.yaml", read_mapping),
    "audit": only("audit.jsonl", summarise),
    "model": read_model,
}


@pytest.fixture
def good(tmp_path, kit, remembering_encoder, tiny_base):
    """A folder of good files for each reader."""
    root = tmp_path / "good"
    for name in READERS:
        (root / name).mkdir(parents=True)
    pairs = {f"layer.{n}": (torch.ones(2, 8), torch.ones(8, 2)) for n in range(2)}
    LoraFactors.uniform(pairs, 2.0).save(root / "adapter")
    fit_detector(remembering_encoder, PROMPTS, DetectorConfig(), seed=0).save(root / "detector")
    fit_answers(PROMPTS, ANSWERS).save(root / "answers")
    kit.fill(root / "store")
    write_json(root / "result/metrics.json", {"requests": ["a"], "utility": {"seen": [1.0, 0.5]}})
    row = {"prompt": "Who?", "answer": "Kim", "held_out_prompts": ["And who?"], "request_id": "a"}
    (root / "requests/forget.jsonl").write_text(json.dumps(row) + "\n")
    write_atomically(
        root / "config/config.yaml", yaml.safe_dump({"name": "a", "base": {"id": "b"}, "seed": [1]})
    )
    log = AuditLog(str(root / "audit/audit.jsonl"), 10_000, 1)
    log.write(id="1", decision="refuse", weights={"a": 1.0}, latency_ms=4.0, failed=False)
    log.close()
    tiny_base.model.save_pretrained(root / "model", safe_serialization=True)
    tiny_base.tokenizer.save_pretrained(root / "model")
    for name, read in READERS.items():
        read(root / name)
    return root


def outcome(read, folder):
    """What is wrong with the answer to a damaged folder; empty if nothing is."""

    def stop(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        read(folder)
    except O3Error as error:
        named = folder.name in str(error)
        return "" if named and "\n" not in str(error) else f"not one line with a name: {str(error)[:300]!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.alarm(0)
    return ""


def check_files(good, seed, count):
    """Damages one file of each kind in turn; returns how many were refused."""
    wrong = {}
    for number in range(count):
        draw = random.Random(f"{seed}-{number}")
        name = list(READERS)[number % len(READERS)]
        folder = good.parent / "damaged" / name
        shutil.copytree(good / name, folder)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
        victim = draw.choice(files)
        damage(victim, draw)
        problem = outcome(READERS[name], folder)
        if problem:
            wrong[f"{seed}-{number} {victim.relative_to(folder.parent)}"] = problem
        shutil.rmtree(folder)
    assert not wrong, "\n".join(f"{name}\n    {problem}" for name, problem in wrong.items())


def test_a_hundred_hostile_files_are_refused_by_name_or_harmless(good):
    check_files(good, 0, 99)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_two_thousand_hostile_files_are_refused_by_name_or_harmless(good, seed):
    check_files(good, seed, 1008)
