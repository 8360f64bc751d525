"""Next-token training of small base models."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from o3_lightning.data.encoding import TokenBatch, collate, encode_pairs
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.data.templates import PromptTemplate
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


def learn_answers(
    model: Any,
    tokenizer: Any,
    template: PromptTemplate,
    rows: Sequence[QuestionAnswer],
    config: FictitiousBaseConfig,
    seed: int,
) -> None:
    """Trains every weight of a model, on its device, on the answers of rows; the seed gives their order.

    Batches are drawn from all rows; sorting them by length was tried and reached a lower accuracy.
    """
    prompts, answers = [row.prompt for row in rows], [row.answer for row in rows]
    loader: DataLoader[Any] = DataLoader(
        encode_pairs(tokenizer, template, prompts, answers, config.context_tokens),  # type: ignore[arg-type]
        batch_size=config.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=lambda items: collate(items, tokenizer.pad_token_id),
    )
    trainer = Trainer(
        max_epochs=config.epochs,
        accelerator="gpu" if next(model.parameters()).is_cuda else "cpu",
        devices=1,
        gradient_clip_val=config.clip,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(PretrainingModule(model, config, len(loader) * config.epochs), loader)
