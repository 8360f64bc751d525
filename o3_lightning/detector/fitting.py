"""Fits and calibrates the fusion of one request from its forget prompts alone."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from o3_lightning.detector.calibration import (
    check_recall,
    cross_fit,
    fit_narrowing,
    fit_scale_floor,
    tail_weights,
)
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.constants import (
    CLOSE_NEIGHBOURS,
    FOLDS,
    LEXICAL_POWER,
    MOST_SWAPS,
    NARROWING_GAIN,
    SMALLEST_REQUEST,
    SUBJECT_COPIES,
    SUBJECT_KIN,
    SWAP_DEVIATIONS,
    SWAP_FRACTION,
    SWAP_QUANTILE,
    WITHIN_LAYERS,
)
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.entity_direction import Kin, replace_tokens
from o3_lightning.detector.prompt_features import (
    PromptInputs,
    read_tokens,
    select_layers,
    special_ids,
    stack_inputs,
)
from o3_lightning.detector.pseudo_negatives import SwapTable, drop_views, swap_rare_tokens
from o3_lightning.detector.score_fusion import (
    FusionState,
    combine_channels,
    fit_fusion,
    fusion_channels,
    know_words,
)

__all__ = ["calibrate_fusion", "made_up_neighbours", "score_rows"]

SMALLEST_SPREAD = 1e-4
MOST_VIEWS = 8


@dataclass(frozen=True)
class OtherPrompts:
    """Made-up prompts about something else than the request.

    Args:
        inputs: the prompts, M of them.
        owners: the numbers of the forget prompts that they were made from [M].
    """

    inputs: PromptInputs
    owners: Tensor


def calibrate_fusion(
    encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int
) -> tuple[FusionState, dict[str, Any], list[str]]:
    """Returns the calibrated state of one request, its figures, and warnings.

    Args:
        encoder: the encoder behind the inputs.
        inputs: distinct forget prompts, N >= 1.
        config: settings.
        seed: of folds, clusters and made-up neighbours.
    """
    others = prompts_about_others(encoder, inputs, config, seed)
    whole = fit_rows(inputs, torch.arange(len(inputs)), config, seed, others)
    channels, warnings = unseen_channels(encoder, inputs, whole, config, seed, others)
    state = standardise(whole, channels)
    made_up = made_up_neighbours(encoder, inputs, config, seed)
    near = stack_inputs([made_up, others.inputs]) if others else made_up
    scores = combine_channels(score_rows(encoder.information, near, state, config), state)[:, 0]
    scale_floor = fit_scale_floor(scores, quantile=SWAP_QUANTILE, deviations=SWAP_DEVIATIONS)
    figures: dict[str, Any] = {"scale_floor": scale_floor, "neighbour_score": float(scores.median())}
    narrowing = 0.0
    if len(inputs) >= SMALLEST_REQUEST:
        own = combine_channels(channels, state)[:, 0]
        if config.reading == "full":
            narrowing, more = narrow(own / scale_floor, scores / scale_floor, config)
            figures["narrowing"] = narrowing
            warnings += more
        figures["recall"], more = promise(own, scale_floor, narrowing, config, seed + 1)
        warnings += more
    known = know_words([*inputs.words, *inputs.other_words], config)
    named = torch.tensor([inputs.named])
    spread = state.score_spread * scale_floor
    center = state.score_center + narrowing * spread
    calibrated = replace(state, known=known, named=named, score_center=center, score_spread=spread)
    return calibrated, figures, warnings


def narrow(own: Tensor, neighbours: Tensor, config: DetectorConfig) -> tuple[float, list[str]]:
    """Returns by how much scores are lowered, and a warning where made-up neighbours are close.

    Args:
        own: cross-fitted standardised scores [N].
        neighbours: of made-up neighbours [M].
        config: settings.
    """
    settings = {"tail_quantile": config.tail_quantile, "slope_power": config.slope_power}
    narrowing = fit_narrowing(own, neighbours, **settings, least_gain=NARROWING_GAIN)
    if float(neighbours.median()) <= CLOSE_NEIGHBOURS:
        return narrowing, []
    near, found = (float(tail_weights(s - narrowing, **settings).mean()) for s in (neighbours, own))
    return narrowing, [
        f"the request is hard to tell from its neighbours: made-up ones have a mean weight of {near:.2f}, "
        f"unseen prompts of its own {found:.2f}; split it by topic, or let each prompt name what it is about"
    ]


def unseen_channels(
    encoder: Encoder,
    inputs: PromptInputs,
    whole: FusionState,
    config: DetectorConfig,
    seed: int,
    others: OtherPrompts | None,
) -> tuple[Tensor, list[str]]:
    """Returns channel scores [N, 1, C] of prompts that the fit has not seen, or of views, with a warning."""
    if len(inputs) < SMALLEST_REQUEST:
        warning = (
            f"{len(inputs)} distinct prompts are too few to cross-fit ({SMALLEST_REQUEST} needed): "
            "the weight is calibrated on views of them with a word left out, and its recall is not checked"
        )
        views = drop_views(inputs.tokens, special_ids(encoder), most=MOST_VIEWS)
        return score_rows(encoder.information, read_tokens(encoder, views), whole, config), [warning]

    def score(fitted: Tensor, scored: Tensor) -> Tensor:
        state = fit_rows(inputs, fitted, config, seed, others)
        return score_rows(encoder.information, inputs.rows(scored), state, config)

    return cross_fit(len(inputs), FOLDS, seed, score), []


def promise(
    sums: Tensor, scale_floor: float, narrowing: float, config: DetectorConfig, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """Returns whether the promised recall is kept by cross-fitted sums [N], and a warning where it is not."""
    check = check_recall(
        sums,
        scale_floor,
        narrowing=narrowing,
        target=config.recall,
        tail_quantile=config.tail_quantile,
        slope_power=config.slope_power,
        folds=FOLDS,
        seed=seed,
    )
    warning = (
        f"a recall of {config.recall:g} is not sure: folds find {check.measured:.3f} of what they "
        f"have not seen, and {check.conformal:.2f} is the weight that so many unseen ones reach"
    )
    return {**asdict(check), "met": check.met}, [] if check.met else [warning]


def fit_rows(
    inputs: PromptInputs, rows: Tensor, config: DetectorConfig, seed: int, others: OtherPrompts | None
) -> FusionState:
    """Fits the channels to some of the prompts, and to those made up from them."""
    chosen = inputs.rows(rows)
    features = select_layers(chosen.features, WITHIN_LAYERS)
    made_up = None
    if others and (mine := torch.isin(others.owners, rows)).any():
        made_up = select_layers(others.inputs.features[mine], WITHIN_LAYERS)
    return fit_fusion(features, chosen.words, config, seed, made_up)


def score_rows(
    information: Tensor, inputs: PromptInputs, state: FusionState, config: DetectorConfig
) -> Tensor:
    """Returns raw channel scores [N, K, C]."""
    features = select_layers(inputs.features, WITHIN_LAYERS)
    return fusion_channels(features, inputs.words, state, information, LEXICAL_POWER)


def standardise(state: FusionState, channels: Tensor) -> FusionState:
    """Returns the state with center and spread of channels [N, 1, C] and of their weighted sum."""
    spread = channels.std(dim=0, correction=0)
    floor = SMALLEST_SPREAD * channels.abs().mean(dim=0).clamp_min(SMALLEST_SPREAD)
    ready = replace(state, center=channels.mean(dim=0), spread=torch.maximum(spread, floor))
    sums = combine_channels(channels, ready)
    score_spread = sums.std(dim=0, correction=0).clamp_min(SMALLEST_SPREAD)
    return replace(ready, score_center=sums.mean(dim=0), score_spread=score_spread)


def made_up_neighbours(
    encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int
) -> PromptInputs:
    """Returns the forget prompts with their rarest tokens exchanged, at most `MOST_SWAPS` of them."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(inputs), generator=generator)[:MOST_SWAPS].tolist()
    table = SwapTable(encoder.pieces, encoder.information)
    swapped = swap_rare_tokens(
        [inputs.tokens[row] for row in chosen],
        special_ids(encoder),
        table,
        fraction=SWAP_FRACTION,
        seed=seed,
    )
    return read_tokens(encoder, swapped)


def prompts_about_others(
    encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int
) -> OtherPrompts | None:
    """Returns the forget prompts with other names and without any, of at most `MOST_SWAPS` prompts.

    Returns:
        None where the request has no subject, and where its prompts are too few to cross-fit.
    """
    holders = [row for row, tokens in enumerate(inputs.tokens) if inputs.subject.intersection(tokens)]
    if not holders or len(inputs) < SMALLEST_REQUEST:
        return None
    known = {token for tokens in inputs.tokens for token in tokens}
    embeddings = encoder.model.get_input_embeddings().weight
    kin = Kin(embeddings, encoder.pieces, known, count=SUBJECT_KIN)
    kinds = {token: kin.near(token) for token in sorted(inputs.subject)}
    generator = random.Random(seed)  # noqa: S311 - not for secrets
    chosen = generator.sample(holders, min(len(holders), MOST_SWAPS))
    draws = [None, *[generator] * SUBJECT_COPIES]
    made = [replace_tokens(inputs.tokens[row], kinds, draw) for draw in draws for row in chosen]
    return OtherPrompts(read_tokens(encoder, made), torch.tensor(chosen * len(draws)))
