"""Adapts an encoder to one request with a LoRA and a contrastive objective; the encoder is left as it was."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from o3_lightning.common.errors import InputError
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.constants import LORA_ALPHA, LORA_DROPOUT, LORA_RANK, SWAP_FRACTION
from o3_lightning.detector.encoder import Encoder, find_encoder
from o3_lightning.detector.prompt_features import special_ids
from o3_lightning.detector.pseudo_negatives import SwapTable, swap_rare_tokens
from o3_lightning.detector.stacked_lora import LoraEncoder
from o3_lightning.models.lora import PEFT_PREFIX

QUERY_KEY_VALUE = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin", "qkv")


def train_encoder(
    encoder: Encoder, tokens: list[list[int]], config: DetectorConfig, seed: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the trained adapter by module name, and the figures of its training.

    Args:
        encoder: the frozen encoder.
        tokens: token ids of the forget prompts, special tokens included.
        config: settings; `objective` is not "none".
        seed: of adapter, order, masks and made-up negatives.

    Raises:
        InputError: no module fits the targets, or the masked-LM term is on and the checkpoint has no head.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    from o3_lightning.detector.module import EncoderTraining

    settings = config.training
    head = pretrained_head(encoder) if settings.mlm_coefficient > 0 else None
    targets = lora_targets(encoder.model)
    table = SwapTable(encoder.pieces, encoder.information)
    special = special_ids(encoder)
    swapped = swap_rare_tokens(tokens, special, table, fraction=SWAP_FRACTION, seed=seed)
    lora = LoraConfig(
        r=LORA_RANK, lora_alpha=LORA_ALPHA, lora_dropout=LORA_DROPOUT, target_modules=list(targets)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_peft_model(copy.deepcopy(encoder.model), lora)
        partners = share_subject(tokens, special, encoder.information)
        module = EncoderTraining(encoder, model, tokens, swapped, partners, config.objective, settings, head)
        order = torch.Generator().manual_seed(seed)
        numbers: Any = torch.arange(len(tokens))
        loader: DataLoader[Tensor] = DataLoader(
            numbers, batch_size=settings.batch_size, shuffle=True, generator=order
        )
        quiet_trainer(config).fit(module, loader)
    tensors = {
        name.removeprefix(PEFT_PREFIX): value.detach().cpu().float().clone()
        for name, value in get_peft_model_state_dict(model).items()
    }
    return tensors, {"objective": config.objective, "loss": module.curve, "steps": len(module.curve)}


def quiet_trainer(config: DetectorConfig) -> Any:
    """Returns a `lightning.Trainer` that writes nothing, and shows steps and time left after some seconds."""
    import lightning

    from o3_lightning.training.trainer import StepLog

    return lightning.Trainer(
        max_epochs=config.training.epochs,
        accelerator="cpu" if config.device == "cpu" else "auto",
        devices=1,
        logger=False,
        callbacks=[StepLog("training the detector")],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def with_lora(encoder: Encoder, lora: Mapping[str, Tensor]) -> Encoder:
    """Returns the encoder seen through an adapter; both share one model."""
    fields = {name: getattr(encoder, name) for name in Encoder.__dataclass_fields__}
    return LoraEncoder(**fields, lora=lora, scaling=LORA_ALPHA / LORA_RANK)


def lora_targets(model: nn.Module) -> tuple[str, ...]:
    """Returns the last names of a model's query, key and value modules, which get a LoRA.

    Raises:
        InputError: the model has none under a known name.
    """
    names = {
        name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    found = tuple(sorted(names.intersection(QUERY_KEY_VALUE)))
    if not found:
        message = f"expected linear modules of {', '.join(QUERY_KEY_VALUE)}; got {', '.join(sorted(names))}"
        raise InputError(message, field="detector.encoder")
    return found


def pretrained_head(encoder: Encoder) -> Any:
    """Returns the masked-LM head that came with the checkpoint, frozen.

    Raises:
        InputError: the checkpoint has no such head; a fresh one would start at chance.
    """
    from transformers import AutoModelForMaskedLM

    refused = InputError(
        f"the checkpoint of encoder {encoder.id!r} has no masked-LM head; a fresh one would start at chance. "
        "Set it to 0 or take an encoder with its head, such as roberta-large",
        field="detector.training.mlm_coefficient",
    )
    try:
        full, loaded = AutoModelForMaskedLM.from_pretrained(
            find_encoder(encoder.id), output_loading_info=True, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise refused from error
    head = getattr(full, "cls", None) or getattr(full, "lm_head", None)
    tied = ("decoder.weight", "decoder.bias")
    if head is None or any(not key.endswith(tied) for key in loaded["missing_keys"]):
        raise refused
    return head.requires_grad_(False).eval()


def share_subject(tokens: Sequence[Sequence[int]], special: set[int], information: Tensor) -> list[list[int]]:
    """Returns for each prompt those with its subject: its rarest token that another prompt has too."""
    places: dict[int, list[int]] = {}
    for row, ids in enumerate(tokens):
        for token in set(ids) - special:
            places.setdefault(token, []).append(row)
    partners = []
    for row, ids in enumerate(tokens):
        shared = [token for token in set(ids) - special if len(places[token]) > 1]
        subject = max(shared, key=lambda token: (float(information[token]), token), default=None)
        partners.append([row] if subject is None else places[subject])
    return partners
