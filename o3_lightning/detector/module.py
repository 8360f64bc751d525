"""The LightningModule that adapts an encoder to one request.

Shape letters: N rows of a batch, L layers, D width, T tokens.
"""

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F

from o3_lightning.detector.config import TrainingConfig
from o3_lightning.detector.constants import MASKED_FRACTION
from o3_lightning.detector.encoder import Encoder, pool_hidden_states
from o3_lightning.detector.losses import contrastive_entropy, entity_swap_loss, info_nce, nt_xent

IGNORED = -100
PAIRED = {"info_nce": info_nce, "nt_xent": nt_xent}  # losses of two views of the last layer
OFFICIAL_FLOOR = 1e-5  # added to a probability before its logarithm; official code


class EncoderTraining(lightning.LightningModule):
    """Trains the LoRA of a query encoder; the key encoder follows it by momentum.

    Args:
        encoder: tokenizer, pooling and padding.
        model: the encoder's model with a PEFT adapter, everything else frozen.
        tokens: token ids of the forget prompts.
        swapped: token ids of the same prompts about something else, for "entity_swap".
        partners: per prompt the numbers of the prompts that share its subject, itself included.
        objective: one of `config.OBJECTIVES` but "none".
        config: training settings.
        head: the checkpoint's masked-LM head, or None without that term.
    """

    def __init__(
        self,
        encoder: Encoder,
        model: Any,
        tokens: Sequence[Sequence[int]],
        swapped: Sequence[Sequence[int]],
        partners: Sequence[Sequence[int]],
        objective: str,
        config: TrainingConfig,
        head: Any = None,
    ) -> None:
        super().__init__()
        self.model, self.head = model, head
        self.objective, self.config = objective, config
        self.encoder, self.tokens, self.swapped, self.partners = encoder, tokens, swapped, partners
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.key = [parameter.detach().clone() for parameter in self.trained]
        self.curve: list[float] = []

    def training_step(self, rows: Tensor, batch_index: int) -> Tensor:
        """Returns the loss of the prompts with these numbers [N]."""
        ids, mask = self.padded(self.tokens, rows.tolist())
        loss = self.contrast(rows, ids, mask)
        if self.head is not None and self.config.mlm_coefficient > 0:
            loss = loss + self.config.mlm_coefficient * self.masked_lm(ids, mask)
        self.curve.append(float(loss.detach()))
        return loss

    def contrast(self, rows: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Returns the contrastive term."""
        settings = self.config
        if self.objective == "entity_swap":
            chosen = [self.partners[row] for row in rows.tolist()]
            picks = [group[int(torch.randint(len(group), (1,)))] for group in chosen]
            same = torch.tensor([[pick in group for pick in picks] for group in chosen], device=self.device)
            positive = self.pooled(*self.padded(self.tokens, picks))[:, -1]
            swapped = self.pooled(*self.padded(self.swapped, rows.tolist()))[:, -1]
            anchor = self.pooled(ids, mask)[:, -1]
            return entity_swap_loss(anchor, positive, swapped, same, temperature=settings.temperature)
        query = self.pooled(self.hide(ids, mask)[0], mask)
        if self.objective in PAIRED:
            return PAIRED[self.objective](
                query[:, -1], self.pooled(ids, mask)[:, -1], temperature=settings.temperature
            )
        self.exchange()
        with torch.no_grad():
            key = self.pooled(ids, mask)
        self.exchange()
        if self.objective == "official_entropy":
            return contrastive_entropy(query, key, floor=OFFICIAL_FLOOR)
        return contrastive_entropy(query, key, temperature=settings.temperature, normalise=True)

    def masked_lm(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Returns the cross-entropy of the hidden tokens under the pretrained head."""
        hidden_ids, hidden = self.hide(ids, mask)
        logits = self.head(self.model(input_ids=hidden_ids, attention_mask=mask).last_hidden_state)
        labels = ids.masked_fill(~hidden, IGNORED)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    def hide(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns token ids with a share of them masked, at least one a row, and where."""
        tokenizer = self.encoder.tokenizer
        special = torch.tensor(sorted(tokenizer.all_special_ids), device=ids.device)
        free = mask.bool() & ~torch.isin(ids, special)
        chance = torch.rand(ids.shape, device=ids.device).masked_fill(~free, torch.inf)
        hidden = free & ((chance < MASKED_FRACTION) | (chance == chance.amin(dim=1, keepdim=True)))
        mask_id = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.unk_token_id
        return ids.masked_fill(hidden, mask_id), hidden

    def padded(self, table: Sequence[Sequence[int]], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns ids and mask of some prompts of a table, on the module's device."""
        ids, mask = self.encoder.pad([table[row] for row in rows])
        return ids.to(self.device), mask.to(self.device)

    def pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Returns features [N, L, D]."""
        output = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return pool_hidden_states(torch.stack(tuple(output.hidden_states)), mask, self.encoder.pooling)

    def exchange(self) -> None:
        """Exchanges query and key weights."""
        self.key = [value.to(self.device) for value in self.key]
        for index, parameter in enumerate(self.trained):
            parameter.data, self.key[index] = self.key[index], parameter.data

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Lets the key encoder follow by momentum; the official one stays the pretrained one."""
        momentum = 1.0 if self.objective == "official_entropy" else self.config.momentum
        self.key = [
            momentum * key.to(own.device) + (1 - momentum) * own.detach()
            for key, own in zip(self.key, self.trained, strict=True)
        ]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns AdamW over the adapter alone; epsilon as in the official code."""
        return torch.optim.AdamW(self.trained, lr=self.config.learning_rate, eps=1e-6)
