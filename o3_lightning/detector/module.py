"""The LightningModule that adapts an encoder to one request, and its losses as functions of features.

Shape letters: N rows of a batch, L layers, D width, T tokens.
"""

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F

from o3_lightning.detector.config import TrainingConfig
from o3_lightning.detector.constants import MASKED_FRACTION, MOMENTUM_QUEUE
from o3_lightning.detector.encoder import Encoder, pool_hidden_states

IGNORED = -100
OFFICIAL_FLOOR = 1e-5  # added to a probability before its logarithm; official code


def contrastive_entropy(
    query: Tensor, key: Tensor, *, temperature: float = 1.0, normalise: bool = False, floor: float = 0.0
) -> Tensor:
    """Returns the sum over layers of the mean entropy of p_ij = softmax_j of query-key products.

    Args:
        query: features of the masked views [N, L, D].
        key: features of the plain prompts by the key encoder [N, L, D]; no gradient flows into them.
        temperature: divides the products; 1 in the official code.
        normalise: whether features are scaled to length 1 first; the official code does not.
        floor: added to a probability before its logarithm; 1e-5 in the official code.

    Returns:
        A scalar, not negative.

    Source:
        O3, equation 6; official `ood_loss.py` takes raw products of mean-pooled features.

    Example:
        >>> contrastive_entropy(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3)).exp().round().item()
        2.0
    """
    key = key.detach()
    if normalise:
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    logits = torch.einsum("ild,jld->lij", query, key) / temperature
    log_probability = F.log_softmax(logits, dim=-1)
    probability = log_probability.exp()
    if floor > 0:
        log_probability = torch.log(probability + floor)
    entropy = -(probability * log_probability).sum(dim=-1)
    return entropy.mean(dim=-1).sum()


def info_nce(query: Tensor, key: Tensor, *, temperature: float) -> Tensor:
    """Returns the symmetric InfoNCE loss of two views, the SimCLR ablation of the paper.

    Args:
        query: features of one view, last layer [N, D].
        key: features of the other view [N, D]; row i of both come from prompt i.
        temperature: positive.
    """
    logits = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).T / temperature
    target = torch.arange(len(query), device=query.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def nt_xent(query: Tensor, key: Tensor, *, temperature: float) -> Tensor:
    """Returns NT-Xent: each of the 2N views has to find its partner among all the others.

    Args:
        query: features of one view [N, D].
        key: features of the other view [N, D]; row i of both come from prompt i.
        temperature: positive.

    Source:
        Chen et al. 2020 (SimCLR), as in the file of that name of O3's code; `info_nce` compares each view
        with those of the other kind alone.
    """
    views = F.normalize(torch.cat([query, key]), dim=-1)
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(query))
    return F.cross_entropy(logits, partner)


def moco(query: Tensor, key: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """Returns MoCo's loss: each view has to find its key among those of earlier steps.

    Args:
        query: features of the masked views [N, D].
        key: features of the plain prompts by the momentum encoder [N, D].
        queue: keys of earlier steps [Q, D]; the loss is 0 while there are none.
        temperature: positive.

    Source:
        He et al. 2020; the queue starts empty here, not with random vectors.
    """
    query, key, queue = (F.normalize(rows, dim=-1) for rows in (query, key, queue))
    logits = torch.cat([(query * key).sum(dim=-1, keepdim=True), query @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64, device=query.device))


def entity_swap_loss(
    anchor: Tensor, positive: Tensor, swapped: Tensor, positives: Tensor, *, temperature: float
) -> Tensor:
    """Returns InfoNCE with the same prompts about somebody else as hard negatives.

    Args:
        anchor: features [N, D].
        positive: features of a prompt that shares the anchor's entity [N, D].
        swapped: features of prompts whose entities were exchanged [M, D].
        positives: True where rows i and j of the batch share an entity [N, N]; such pairs are no negatives.
        temperature: positive.
    """
    anchor, positive, swapped = (F.normalize(rows, dim=-1) for rows in (anchor, positive, swapped))
    own = (anchor * positive).sum(dim=-1, keepdim=True) / temperature
    others = (anchor @ positive.T / temperature).masked_fill(positives, -torch.inf)
    hard = anchor @ swapped.T / temperature
    logits = torch.cat([own, others, hard], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(anchor), dtype=torch.int64, device=anchor.device))


PAIRED = {"info_nce": info_nce, "nt_xent": nt_xent}  # losses of two views of the last layer


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
        self.queue = torch.empty(0)  # of "moco" [Q, D], the newest key first

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
        if self.objective == "moco":
            last = key[:, -1]
            queue = self.queue.to(last).reshape(-1, last.shape[1])
            self.queue = torch.cat([last, queue])[:MOMENTUM_QUEUE]
            return moco(query[:, -1], last, queue, temperature=settings.temperature)
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
