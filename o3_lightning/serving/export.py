"""Writes what other engines need: settings and a start script for vLLM, adapters in GGUF for llama.cpp."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from o3_lightning.common.checks import check_among
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import read_result, write_atomically, write_json
from o3_lightning.gating.config import GateConfig
from o3_lightning.models.base import digest_weights, locate
from o3_lightning.models.config import BaseConfig
from o3_lightning.models.lora import LoraFactors
from o3_lightning.models.settings import recorded_config
from o3_lightning.serving.composing import pad_rank
from o3_lightning.serving.config import ServeConfig
from o3_lightning.serving.vllm import VARIABLE, VllmConfig
from o3_lightning.store.view import StoreView

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that `--max-lora-rank` takes
VLLM_SLOTS = 8  # combined adapters that one batch may hold
PROMPT_SETTINGS = ("chat_template_kwargs", "date_string", "system_prompt")
GGUF_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
ROTATED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}


def export_vllm(
    store: StoreView, gate: GateConfig, folder: Path, *, steps: int, name: str, audit: str
) -> str:
    """Writes `vllm.json` and `serve.sh` into a folder, and returns the script's path.

    Args:
        store: with the requests; the server follows it.
        gate: the gate's settings.
        folder: created if missing.
        steps: strengths are rounded to multiples of 1 / steps.
        name: of the model in the interface; empty takes the base model's id.
        audit: file of the audit log; empty writes none.

    Raises:
        InputError: vLLM cannot serve the base model as the store knows it, or the folder is not writable.
        StoreError: a file of the store is damaged.
    """
    model = weights_folder(store)
    ranks = [len(a) for factors in load_adapters(store).values() for a, _ in factors.pairs.values()]
    needed = 2 * max(ranks, default=8)  # two requests may act on one prompt
    rank = next((rank for rank in VLLM_RANKS if rank >= needed), VLLM_RANKS[-1])
    target, name = folder.absolute(), name or store.base_id
    gate = replace(gate, timeout_seconds=gate.timeout_seconds or ServeConfig.gate_timeout_seconds)
    config = VllmConfig(
        store=str(store.path.absolute()), model=str(model), name=name, adapters=str(target / "adapters"),
        gate=asdict(gate), steps=steps, max_rank=rank, audit=audit and str(Path(audit).absolute()),
    )  # fmt: skip
    words = ["--model", str(model), "--served-model-name", name, "--dtype"]
    words += [store.base_settings.get("dtype", "auto"), "--enable-lora", "--max-lora-rank", str(rank)]
    words += ["--max-loras", str(VLLM_SLOTS)]
    words += ["--middleware", "o3_lightning.serving.vllm.GateMiddleware"]
    script = (
        "#!/bin/sh\n# The gated model in vLLM, on the loopback; further options are vLLM's.\n"
        f"export {VARIABLE}={shlex.quote(str(target / 'vllm.json'))} VLLM_ALLOW_RUNTIME_LORA_UPDATING=1\n"
        f'exec python -m vllm.entrypoints.openai.api_server --host 127.0.0.1 {shlex.join(words)} "$@"\n'
    )
    try:
        write_json(target / "vllm.json", asdict(config))
        write_atomically(target / "serve.sh", script)
        (target / "serve.sh").chmod(0o755)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", path=target) from error
    return str(target / "serve.sh")


def export_llama_cpp(store: StoreView, folder: Path) -> list[str]:
    """Writes one GGUF adapter a request into a folder, and returns their paths in the order of the store.

    Raises:
        InputError: the package `gguf` is missing, the base model's architecture is not known, or a file
            cannot be written.
        StoreError: a file of the store is damaged.
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise InputError("GGUF files need the package gguf; try: pip install gguf") from error
    config = read_result(weights_folder(store) / "config.json", "num_hidden_layers", "num_attention_heads")
    check_among(config.get("model_type"), GGUF_ARCHITECTURES, "model_type")
    architecture = GGUF_ARCHITECTURES[config["model_type"]]
    names = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    table = gguf.get_tensor_name_map(names[architecture], config["num_hidden_layers"])
    paths = []
    for id, factors in load_adapters(store).items():
        path, draft = folder / f"{id}.gguf", folder / f".{id}.gguf.tmp"
        paths.append(str(path))
        writer = gguf.GGUFWriter(draft, architecture)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        rank = max(len(a) for a, _ in factors.pairs.values())
        writer.add_float32("adapter.lora.alpha", float(rank))
        for module, (a, b) in factors.folded().items():
            name = table.get_name(f"{module}.weight", try_suffixes=(".weight",))
            if name is None:
                raise InputError(f"llama.cpp has no name for the module {module}")
            if architecture == "llama":
                b = pair_up(b, module.rpartition(".")[2], config)
            for side, tensor in zip("ab", pad_rank(a.float(), b.float(), rank), strict=True):
                writer.add_tensor(f"{name}.lora_{side}", tensor.contiguous().numpy())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise InputError(f"cannot be written: {error.strerror or error}", path=path) from error
    return paths


def pair_up(b: Tensor, module: str, config: Mapping[str, Any]) -> Tensor:
    """Returns B with the rows of queries and keys in llama.cpp's order for rotary positions."""
    if module not in ROTATED:
        return b
    heads = config.get(ROTATED[module]) or config["num_attention_heads"]
    return b.reshape(heads, 2, len(b) // heads // 2, -1).swapaxes(1, 2).reshape(b.shape)


def load_adapters(store: StoreView) -> dict[str, LoraFactors]:
    """Returns the adapters of the unlearned requests, in the order of the store."""
    return {one.id: LoraFactors.load(one.adapter) for one in store.gated() if one.adapter is not None}


def weights_folder(store: StoreView) -> Path:
    """Returns the folder with the base model's weights.

    Raises:
        InputError: they are not plain safetensors, or the store records a way to write prompts that other
            engines do not follow.
    """
    recorded = store.base_settings
    changed = [name for name in PROMPT_SETTINGS if recorded.get(name)]
    if changed or recorded.get("finetune_on") or recorded.get("quantise", "none") != "none":
        field = (changed or ["finetune_on" if recorded.get("finetune_on") else "quantise"])[0]
        raise InputError("other engines do not follow this setting of the base model", field=f"base.{field}")
    folder, gguf = locate(*recorded_config(BaseConfig(id=store.base_id), recorded), ())
    if gguf is not None or digest_weights(folder) != store.base_digest:
        raise InputError("expected the safetensors that the store was made for", path=folder, field="base.id")
    return folder
