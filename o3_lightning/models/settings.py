"""What a base model was opened with, besides its weights: recorded in a store, compared when reopened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import leaves, to_plain
from o3_lightning.data.chat_format import write_date
from o3_lightning.models.config import BaseConfig, FinetuneConfig

if TYPE_CHECKING:
    import torch

    from o3_lightning.data.templates import PromptTemplate

SEEDED = ("fictitious", "tofu-small")  # bases that the project trains


def record_settings(
    config: BaseConfig, seed: int, dtype: torch.dtype, template: PromptTemplate
) -> dict[str, Any]:
    """Returns, as plain JSON, everything besides weights and device that decides what a base model answers.

    Args:
        config: what the base was opened with.
        seed: recorded only where the project trains the model.
        dtype: that "auto" stands for, if it was given.
        template: that "auto" stands for, if it was given.
    """
    taught = config.finetune_on
    rows = tuple(str(Path(row).absolute()) if Path(row).is_file() else row for row in taught.rows)
    chat = template.chat
    return {
        "template": template.name,
        "revision": config.revision,
        "dtype": str(dtype).removeprefix("torch."),
        "quantise": config.quantise,
        "context_tokens": config.context_tokens,
        "chat_template_kwargs": to_plain(config.chat_template_kwargs),
        "date_string": write_date(chat.date) if chat and (chat.writes_date or config.date_string) else "",
        "system_prompt": config.system_prompt,
        "finetune_on": to_plain(replace(taught, rows=rows)) if taught.teaches else None,
        "seed": seed if taught.teaches or config.id in SEEDED else 0,
    }


def recorded_config(config: BaseConfig, recorded: Mapping[str, Any]) -> tuple[BaseConfig, int]:
    """Returns the configuration that reopens a base model, and its seed.

    Args:
        config: its id and device are kept.
        recorded: from `record_settings`; empty changes nothing.

    Raises:
        InputError: a setting that this program does not know, or a value outside its range.
    """
    given = dict(recorded)
    seed = int(given.pop("seed", 0))
    taught = given.pop("finetune_on", None)
    try:
        if taught:
            given["finetune_on"] = FinetuneConfig(**{**taught, "rows": tuple(taught["rows"])})
        return replace(config, **given), seed
    except (TypeError, KeyError) as error:
        raise InputError(
            f"the store records a setting that is not known here: {error}", field="base"
        ) from error


def with_recorded_date(config: BaseConfig, recorded: Mapping[str, Any]) -> BaseConfig:
    """Returns the configuration with the date that a store recorded, unless it names one."""
    return replace(config, date_string=config.date_string or recorded.get("date_string", ""))


def check_settings(recorded: Mapping[str, Any], opened: Mapping[str, Any]) -> None:
    """Refuses a base model that was opened otherwise than a store recorded.

    Args:
        recorded: from `record_settings`; nothing is checked if it is empty.
        opened: the same of the base model in use; nothing is checked if it is empty.

    Raises:
        InputError: a setting differs; the message gives both values of each.
    """
    if not recorded or not opened:
        return
    was, now = dict(leaves(recorded)), dict(leaves(opened))
    differ = [
        f"base.{key} is {was.get(key)!r} in the store, {now.get(key)!r} here"
        for key in dict.fromkeys([*was, *now])
        if was.get(key) != now.get(key)
    ]
    if differ:
        raise InputError(f"the base model was opened with other settings: {'; '.join(differ)}")
