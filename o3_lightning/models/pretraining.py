"""Next-token training of small base models: a Lightning module and a loader."""

import math
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from o3_lightning.data.encoding import Example, TokenBatch, collate
from o3_lightning.models.config import FictitiousBaseConfig

FIRST_MOMENT = 0.9  # AdamW's usual beta_1


class PretrainingModule(LightningModule):
    """Learns answers by next-token prediction; prompts carry no loss.

    Args:
        model: a causal language model.
        config: learning rate, decay and warm-up.
        steps: optimizer steps in all, for the learning rate's cosine.
    """

    def __init__(self, model: Any, config: FictitiousBaseConfig, steps: int) -> None:
        super().__init__()
        self.model, self.config, self.steps = model, config, steps

    def training_step(self, batch: TokenBatch, index: int) -> Tensor:
        """Returns the mean loss over the answers' tokens of a batch."""
        output = self.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
        )
        self.log("loss", output.loss, prog_bar=True)
        loss: Tensor = output.loss
        return loss

    def configure_optimizers(self) -> Any:
        """Returns AdamW with warm-up and a cosine down to zero."""
        config = self.config
        optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(FIRST_MOMENT, config.second_moment),
            fused=True,
        )
        warmup = max(1, round(config.warmup_fraction * self.steps))

        def factor(step: int) -> float:
            rising = min(1.0, (step + 1) / warmup)
            return rising * (1 + math.cos(math.pi * step / self.steps)) / 2

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def batch_loader(examples: list[Example], pad_id: int, batch_size: int, seed: int) -> DataLoader[Any]:
    """Returns a loader whose order depends on the seed alone.

    Batches are drawn from all rows; sorting them by length was tried and reached a lower accuracy.
    """
    return DataLoader(
        examples,  # type: ignore[arg-type]
        batch_size=batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=lambda items: collate(items, pad_id),
    )
