"""The default detector's scores: five channels over one encoder pass, standardised and added up.

whitened     largest cosine to a centroid, after undoing what varies inside a cluster; last layers
cosine       largest cosine to a bank row, last layer
mahalanobis  minus the squared distance to the request's mean under a shrunk covariance, last layer
lexical      known share of what is rare in the prompt
subject      along the direction from made-up prompts about something else to the forget prompts; last layers
Every channel is higher for prompts closer to the forget set.
Shape letters: B rows, K requests, C channels, L layers, D width, R rank, M bank rows, N prompts,
H hash buckets.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from o3_kernels import LayerScores, layer_scores, split_on_gpu
from o3_lightning.detector.config import CHANNELS, DetectorConfig
from o3_lightning.detector.constants import (
    CENTROIDS,
    CERTAIN_COUNT,
    CERTAIN_FRACTION,
    LEXICAL_BUCKETS,
    MOST_RANK,
    ROWS_PER_CENTROID,
    WITHIN_RANK,
)
from o3_lightning.detector.entity_direction import fit_direction
from o3_lightning.detector.layer_statistics import (
    WhitenedCentroids,
    fit_precision,
    fit_whitened_centroids,
    nearest_centroid,
    spherical_centroids,
)
from o3_lightning.detector.lexical import fit_word_table, hash_tokens, lexical_scores

MATRICES = ("whitening", "bank", "within_whitening", "within_bank")
PER_LAYER_AXES = 3  # layer, row and width of the matrices of one request
CALL_ROWS = 2_000  # of padding, which cost a single prompt as much as one more call


@dataclass(frozen=True)
class FusionState:
    """Everything the channels of K requests need, one stacked tensor each; zeros pad smaller requests.

    Args:
        mean: last layer [K, 1, D].
        scale: 1 / s of the precision at the last layer [K, 1].
        whitening: U of that precision [K, 1, R, D].
        bank: unit rows at the last layer [K, 1, M, D]: centroids, or the prompts themselves.
        within_scale: 1 / s of the precision inside clusters [K, L].
        within_whitening: U of that precision [K, L, R, D].
        within_bank: whitened centroids [K, L, M, D].
        subject: direction of the subject channel at each layer [K, L, D], zeros without a subject.
        subject_offset: what is taken from that channel [K].
        subject_words: hashed tokens of the subject, from 1 on [K, M], int64; 0 pads.
        known: hashed word table [K, H].
        least_known: least known information of a forget prompt, nats^2 [K]; 0 where no people are named.
        named: whether the prompts name people [K], bool.
        center: cross-fitted mean of each channel [K, C].
        spread: its standard deviation, positive [K, C].
        channel_weights: what each channel adds to the sum [K, C].
        score_center: mean of the cross-fitted sums [K].
        score_spread: their standard deviation, positive [K].
    """

    mean: Tensor
    scale: Tensor
    whitening: Tensor
    bank: Tensor
    within_scale: Tensor
    within_whitening: Tensor
    within_bank: Tensor
    subject: Tensor
    subject_offset: Tensor
    subject_words: Tensor
    known: Tensor
    least_known: Tensor
    named: Tensor
    center: Tensor
    spread: Tensor
    channel_weights: Tensor
    score_center: Tensor
    score_spread: Tensor

    def __getstate__(self) -> dict[str, Tensor]:
        """Returns what a copy holds: the rows of the request, not the stack that they are a view of."""
        return {name: value.clone() for name, value in vars(self).items()}


def stack_states(states: Sequence[FusionState]) -> FusionState:
    """Returns one state for single requests, padded to the largest rank and bank.

    A bank is padded with its first row, which counts like the others: whitened similarities may lie below any
    number that could stand for a row that does not count. Matrices of a layer lie side by side in memory, so
    that `layer_scores` takes them for one.
    """
    stacked = {}
    for name in vars(states[0]):
        parts = [getattr(state, name)[0] for state in states]
        shape = [max(sizes) for sizes in zip(*(part.shape for part in parts), strict=True)]
        if len(shape) == PER_LAYER_AXES:
            whole = parts[0].new_zeros(shape[0], len(parts), *shape[1:]).transpose(0, 1)
        else:
            whole = parts[0].new_zeros(len(parts), *shape)
        for place, part in enumerate(parts):
            if name in ("bank", "within_bank"):
                whole[place] = part[:, :1]
            whole[(place, *map(slice, part.shape))] = part
        stacked[name] = whole
    return FusionState(**stacked)


def unstack_states(stack: FusionState, states: Sequence[FusionState]) -> Iterator[FusionState]:
    """Yields the state of each single request that was stacked, a view of the stack without its padding."""
    for place, state in enumerate(states):
        cut = {name: (place, *map(slice, part.shape[1:])) for name, part in vars(state).items()}
        yield FusionState(**{name: getattr(stack, name)[own][None] for name, own in cut.items()})


def similar_sizes(sizes: Sequence[int]) -> Iterator[slice]:
    """Yields runs of adjacent requests, cut where their padding would cost more than another call."""
    start = padding = 0
    for place in range(1, len(sizes)):
        padding += (place - start) * abs(sizes[place] - sizes[place - 1])
        if padding > CALL_ROWS:
            yield slice(start, place)
            start, padding = place, 0
    yield slice(start, len(sizes))


def place_state(state: FusionState, device: torch.device) -> FusionState:
    """Returns the state with what `layer_scores` reads on a device, the matrices split once on a GPU.

    What the other channels read stays where the tokens are, on the CPU.
    """
    vectors = ("mean", "scale", "within_scale")
    moved = {name: getattr(state, name).to(device) for name in (*vectors, *MATRICES)}
    return replace(state, **moved | {name: split_on_gpu(moved[name]) for name in MATRICES})


def fit_fusion(
    features: Tensor,
    tokens: Sequence[Sequence[int]],
    config: DetectorConfig,
    seed: int,
    others: Tensor | None = None,
) -> FusionState:
    """Fits all channels of one request; centers are 0 and spreads 1 until they are calibrated.

    Args:
        features: [N, L, D] of the layers the whitened channel averages, the last one included.
        tokens: token ids of the N prompts, without special tokens.
        config: settings.
        seed: of the clustering.
        others: features of made-up prompts about something else [M, L, D]; None where the request has no
            subject, and that channel counts nothing.
    """
    rows = features.double()
    unit, last = F.normalize(rows, dim=-1), rows[:, -1]
    scale, whitening = fit_precision(last - last.mean(dim=0), MOST_RANK)
    within, centroids = fit_clusters(unit, config, seed)
    bank = unit[:, -1] if config.keeps_examples else centroids
    direction, offset = torch.zeros_like(rows[0]), rows.new_zeros(())
    if others is not None:
        direction, offset = fit_direction(unit, F.normalize(others.double(), dim=-1), MOST_RANK)
    tensors = {
        "mean": last.mean(dim=0)[None],
        "scale": scale[None],
        "whitening": whitening[None],
        "bank": bank[None],
        "within_scale": torch.stack([part.scale for part in within]),
        "within_whitening": pad_stack([part.whitening for part in within]),
        "within_bank": pad_stack([part.bank for part in within], repeat=True),
        "subject": direction,
        "subject_offset": offset,
        "subject_words": torch.zeros(1, dtype=torch.int64),
        "known": know_words(tokens, config)[0],
        "least_known": torch.zeros(()),
        "named": torch.tensor(False),
        "center": torch.zeros(len(CHANNELS)),
        "spread": torch.ones(len(CHANNELS)),
        "channel_weights": weigh_channels(config, subject=others is not None),
        "score_center": torch.zeros(()),
        "score_spread": torch.ones(()),
    }
    floats = {name: v.float() if v.is_floating_point() else v for name, v in tensors.items()}
    return FusionState(**{name: value[None] for name, value in floats.items()})


def fit_clusters(unit: Tensor, config: DetectorConfig, seed: int) -> tuple[list[WhitenedCentroids], Tensor]:
    """Returns whitened centroids at each layer of unit rows [N, L, D], and plain ones [M, D] of the last."""
    count = max(1, min(CENTROIDS, len(unit) // ROWS_PER_CENTROID))
    centroids = [spherical_centroids(rows, count, seed) for rows in unit.unbind(dim=1)]
    fitted = [
        fit_whitened_centroids(rows, nearest_centroid(rows, own), WITHIN_RANK)
        for rows, own in zip(unit.unbind(dim=1), centroids, strict=True)
    ]
    return fitted, centroids[-1]


def weigh_channels(config: DetectorConfig, *, subject: bool) -> Tensor:
    """Returns what each channel counts [C]; that of the subject nothing where there is none."""
    by_channel = dict(zip(config.channels, config.channel_weights, strict=True))
    if not subject:
        by_channel["subject"] = 0.0
    return torch.tensor([by_channel.get(channel, 0.0) for channel in CHANNELS])


def know_words(tokens: Sequence[Sequence[int]], config: DetectorConfig) -> Tensor:
    """Returns the word table [1, H] of prompts, given as token ids without special tokens."""
    certain = max(CERTAIN_COUNT, CERTAIN_FRACTION * len(tokens))
    return fit_word_table(tokens, buckets=LEXICAL_BUCKETS, certain_count=certain)[None]


def pad_stack(parts: Sequence[Tensor], *, repeat: bool = False) -> Tensor:
    """Returns matrices [n, D] stacked to [L, max n, D], padded with zeros or with their first row."""
    longest = max(len(part) for part in parts)
    padded = []
    for part in parts:
        filler = part[:1] if repeat else part.new_zeros(1, part.shape[1])
        padded.append(torch.cat([part, filler.expand(longest - len(part), -1)]))
    return torch.stack(padded)


def fusion_channels(
    features: Tensor, tokens: Sequence[Sequence[int]], state: FusionState, information: Tensor
) -> Tensor:
    """Returns the raw channel scores [B, K, C] of every prompt under every request, to fit and explain.

    Args:
        features: [B, L, D], the layers of `fit_fusion`.
        tokens: token ids of B prompts, without special tokens.
        state: K stacked requests.
        information: -log p by token id [V].
    """
    last = score_last_layer(features, state)
    channels = {
        "whitened": whitened_layers(features, state).mean(dim=2),
        "cosine": last.cosine[:, :, 0].T.cpu(),
        "mahalanobis": -last.mahalanobis[:, :, 0].T.cpu(),
        "lexical": lexical_scores(tokens, state.known, information),
        "subject": subject_scores(features, state),
    }
    return torch.stack([channels[name] for name in CHANNELS], dim=2)


def fused_scores(
    features: Tensor, tokens: Sequence[Sequence[int]], state: FusionState, information: Tensor
) -> Tensor:
    """Returns standardised scores [B, K]: 0 is a typical unseen forget prompt, 1 its standard deviation.

    The sum of `combine_channels`, taken over layers inside `layer_scores`; arguments as `fusion_channels`.
    The direction of the subject tells it from others of its kind. For a text that does not hold the subject
    it counts at most as much as the other channels do on average.
    """
    factors = channel_factors(state)
    of = dict(zip(CHANNELS, factors.unbind(dim=1), strict=True))
    place = CHANNELS.index("subject")
    centred = factors * state.center
    by_layer = score_whitened(features, state).aggregate + score_last_layer(features, state).aggregate
    lexical = of["lexical"] * lexical_scores(tokens, state.known, information)
    others = by_layer.T.cpu() + lexical - (centred.sum(dim=1) - centred[:, place])
    subject = of["subject"] * subject_scores(features, state) - centred[:, place]
    rest = state.channel_weights.double().sum(dim=1) - state.channel_weights[:, place]
    share = state.channel_weights[:, place] / rest.clamp_min(torch.finfo(rest.dtype).tiny)
    capped = lacks_subject(tokens, state) & (rest > 0)
    subject = torch.where(capped, torch.minimum(subject, share * others), subject)
    return (others + subject - state.score_center.double() / state.score_spread).float()


def hash_subject(tokens: Collection[int]) -> Tensor:
    """Returns the hashes of a subject's tokens, at least one entry, from 1 on; 0 for no subject [1, M]."""
    words = hash_tokens(torch.tensor(sorted(tokens), dtype=torch.int64), LEXICAL_BUCKETS) + 1
    return F.pad(words, (0, max(0, 1 - len(words))))[None]


def lacks_subject(tokens: Sequence[Sequence[int]], state: FusionState) -> Tensor:
    """Returns whether each prompt holds no token of the subject of a request that has one [B, K]."""
    with_subject = state.subject_words.any(dim=1)
    lacks = with_subject.expand(len(tokens), -1).clone()
    columns = with_subject.nonzero()[:, 0]
    if not len(columns) or not any(tokens):
        return lacks
    ids = torch.tensor([token for row in tokens for token in row])
    rows = torch.repeat_interleave(torch.arange(len(tokens)), torch.tensor([len(row) for row in tokens]))
    hits = hash_tokens(ids, LEXICAL_BUCKETS)[:, None, None] + 1 == state.subject_words[columns]
    held = torch.zeros(len(tokens), len(columns)).index_add_(0, rows, hits.any(dim=2).float())
    lacks[:, columns] = held == 0
    return lacks


def combine_channels(channels: Tensor, state: FusionState) -> Tensor:
    """Returns the standardised scores [B, K] of raw channel scores [B, K, C]."""
    z = (channels - state.center) / state.spread
    return ((z * state.channel_weights).sum(dim=2) - state.score_center) / state.score_spread


def channel_factors(state: FusionState) -> Tensor:
    """Returns what one unit of each raw channel adds to the standardised score [K, C], float64."""
    return state.channel_weights.double() / state.spread / state.score_spread[:, None]


def score_last_layer(features: Tensor, state: FusionState) -> LayerScores:
    """Returns the channels "mahalanobis" and "cosine" of the last layer, and their part of the score."""
    device = state.mean.device
    factors = channel_factors(state).to(device)
    return layer_scores(
        features[:, -1:].to(device),
        state.mean,
        state.scale,
        state.whitening,
        state.bank,
        None,
        -factors[:, CHANNELS.index("mahalanobis"), None],
        factors[:, CHANNELS.index("cosine"), None],
    )


def score_whitened(features: Tensor, state: FusionState) -> LayerScores:
    """Returns the largest whitened cosine to a centroid per layer, and the channel's share of the score."""
    factor, device = channel_factors(state)[:, CHANNELS.index("whitened"), None], state.mean.device
    weights = (factor / features.shape[1]).to(device).expand_as(state.within_scale)
    return layer_scores(
        F.normalize(features.to(device), dim=-1),
        None,
        state.within_scale,
        state.within_whitening,
        state.within_bank,
        None,
        torch.zeros_like(weights),
        weights,
        whiten_cosine=True,
    )


def whitened_layers(features: Tensor, state: FusionState) -> Tensor:
    """Returns the largest whitened cosine to a centroid at each layer [B, K, L], in [-1, 1].

    Args:
        features: [B, L, D], the layers of `fit_fusion`.
        state: K stacked requests.
    """
    return score_whitened(features, state).cosine.transpose(0, 1).cpu()


def subject_scores(features: Tensor, state: FusionState) -> Tensor:
    """Returns the position of prompts along the subject direction of each request [B, K].

    Args:
        features: [B, L, D], the layers of `fit_fusion`.
        state: K stacked requests; 0 for one without a subject.
    """
    unit = F.normalize(features, dim=-1)
    scores = torch.zeros(len(features), len(state.subject))
    own = state.channel_weights[:, CHANNELS.index("subject")].nonzero()[:, 0]
    scores[:, own] = torch.einsum("bld,kld->bk", unit, state.subject[own]) - state.subject_offset[own]
    return scores
