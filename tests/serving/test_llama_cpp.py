"""Adapters in GGUF: names and values as llama.cpp reads them."""

import pytest
import torch
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

from o3_lightning.commands.cli import main
from o3_lightning.models.lora import LoraFactors
from tests.serving.test_vllm import world  # noqa: F401 - a fixture

gguf = pytest.importorskip("gguf")
NAMES = {"q_proj": "attn_q", "v_proj": "attn_v", "down_proj": "ffn_down"}


def test_gguf_adapters_are_those_of_the_store(world, tmp_path):  # noqa: F811
    main(["export", str(tmp_path), "--target", "llama.cpp", "--store", str(world / "store")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["summers.gguf", "winters.gguf"]
    reader = gguf.GGUFReader(tmp_path / "winters.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    assert (fields["general.architecture"], fields["adapter.lora.alpha"]) == ("llama", 8)
    tensors = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    factors = LoraFactors.load(world / "store" / "requests" / "winters" / "adapter")
    assert len(tensors) == 2 * len(factors.pairs)
    undo = LlamaTensorProcessor()._reverse_permute_weights  # of the reader of GGUF models in transformers
    for path in factors.pairs:
        number, module = path.split(".")[2], path.rpartition(".")[2]
        a, b = (tensors[f"blk.{number}.{NAMES[module]}.weight.lora_{side}"] for side in "ab")
        b = torch.tensor(undo(b.numpy(), 2, 2)) if module == "q_proj" else b
        torch.testing.assert_close(b @ a, factors.delta(path))


def test_a_full_disk_leaves_what_was_exported_before_and_no_half_file(world, tmp_path, monkeypatch, capsys):  # noqa: F811
    words = ["export", str(tmp_path), "--target", "llama.cpp", "--store", str(world / "store")]
    main(words)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert ".gguf: cannot be written: No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
