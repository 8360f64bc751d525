"""Fits and calibrates the fusion of one request from its forget prompts alone."""

import random
from dataclasses import asdict, replace
from typing import Any, NamedTuple

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
from o3_lightning.detector.lexical import known_information
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
    hash_subject,
    know_words,
)

SMALLEST_SPREAD = 1e-4
MOST_VIEWS = 8


class OtherPrompts(NamedTuple):
    """Made-up prompts about something else than the request.

    Args:
        inputs: the prompts, M of them.
        owners: the numbers of the forget prompts that they were made from [M].
    """

    inputs: PromptInputs
    owners: Tensor


class FusionFit:
    """The fit of one request.

    Args:
        encoder: the encoder behind the inputs.
        inputs: distinct forget prompts, N >= 1.
        config: settings.
        seed: of folds, clusters and made-up neighbours.

    Attributes:
        warnings: what is wrong with the request, one sentence each.
    """

    def __init__(self, encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int) -> None:
        self.encoder, self.inputs, self.config, self.seed = encoder, inputs, config, seed
        self.is_small = len(inputs) < SMALLEST_REQUEST
        self.warnings: list[str] = []
        self.others = self.prompts_about_others()

    def calibrate(self) -> tuple[FusionState, dict[str, Any], list[str]]:
        """Returns the calibrated state, its figures, and warnings."""
        inputs, config, known = self.inputs, self.config, [*self.inputs.words, *self.inputs.other_words]
        whole = fit_rows(inputs, torch.arange(len(inputs)), config, self.seed, self.others)
        channels = self.unseen_channels(whole)
        state = standardise(whole, channels)
        made_up = self.made_up_neighbours()
        near = stack_inputs([made_up, self.others.inputs]) if self.others else made_up
        scores = combine_channels(self.score(near, state), state)[:, 0]
        scale_floor = fit_scale_floor(scores, quantile=SWAP_QUANTILE, deviations=SWAP_DEVIATIONS)
        figures: dict[str, Any] = {"scale_floor": scale_floor, "neighbour_score": float(scores.median())}
        narrowing = 0.0
        if not self.is_small:
            own = combine_channels(channels, state)[:, 0]
            if config.reading == "full":
                narrowing = figures["narrowing"] = self.narrow(own / scale_floor, scores / scale_floor)
            figures["recall"] = self.promise(own, scale_floor, narrowing)
        spread = state.score_spread * scale_floor
        table = know_words(known, config)
        held = known_information(inputs.words, table, self.encoder.information)[0]
        calibrated = replace(
            state,
            known=table,
            least_known=held.amin(dim=0).float() * inputs.named,
            subject_words=hash_subject(inputs.subject if self.others else ()),
            named=torch.tensor([inputs.named]),
            score_center=state.score_center + narrowing * spread,
            score_spread=spread,
        )
        return calibrated, figures, self.warnings

    def score(self, inputs: PromptInputs, state: FusionState) -> Tensor:
        """Returns raw channel scores [N, 1, C]."""
        return score_rows(self.encoder.information, inputs, state)

    def narrow(self, own: Tensor, neighbours: Tensor) -> float:
        """Returns by how much scores are lowered; warns where made-up neighbours are close.

        Args:
            own: cross-fitted standardised scores [N].
            neighbours: of made-up neighbours [M].
        """
        tail = self.config.tail_quantile
        narrowing = fit_narrowing(own, neighbours, tail_quantile=tail, least_gain=NARROWING_GAIN)
        if float(neighbours.median()) > CLOSE_NEIGHBOURS:
            near, found = (float(tail_weights(s - narrowing, tail).mean()) for s in (neighbours, own))
            self.warnings.append(
                "the request is hard to tell from its neighbours: made-up ones have a mean weight of "
                f"{near:.2f}, unseen prompts of its own {found:.2f}; split it by topic, or let each prompt "
                "name what it is about"
            )
        return narrowing

    def unseen_channels(self, whole: FusionState) -> Tensor:
        """Returns channel scores [N, 1, C] of prompts that the fit has not seen, or of views."""
        if self.is_small:
            self.warnings.append(
                f"{len(self.inputs)} distinct prompts are too few to cross-fit ({SMALLEST_REQUEST} needed): "
                "the weight is calibrated on views of them with a word left out, and its recall is not "
                "checked"
            )
            views = drop_views(self.inputs.tokens, special_ids(self.encoder), most=MOST_VIEWS)
            return self.score(read_tokens(self.encoder, views), whole)

        def score(fitted: Tensor, scored: Tensor) -> Tensor:
            state = fit_rows(self.inputs, fitted, self.config, self.seed, self.others)
            return self.score(self.inputs.rows(scored), state)

        return cross_fit(len(self.inputs), FOLDS, self.seed, score)

    def promise(self, sums: Tensor, scale_floor: float, narrowing: float) -> dict[str, Any]:
        """Returns whether cross-fitted sums [N] keep the promised recall; warns where they do not."""
        target, tail = self.config.recall, self.config.tail_quantile
        check = check_recall(
            sums,
            scale_floor,
            target=target,
            narrowing=narrowing,
            tail_quantile=tail,
            folds=FOLDS,
            seed=self.seed + 1,
        )
        if not check.met:
            self.warnings.append(
                f"a recall of {target:g} is not sure: folds find {check.measured:.3f} of what they have not "
                f"seen, and {check.conformal:.2f} is the weight that so many unseen ones reach"
            )
        return {**asdict(check), "met": check.met}

    def made_up_neighbours(self) -> PromptInputs:
        """Returns the forget prompts with their rarest tokens exchanged, at most `MOST_SWAPS` of them."""
        encoder, generator = self.encoder, torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(self.inputs), generator=generator)[:MOST_SWAPS].tolist()
        tokens, table = (
            [self.inputs.tokens[row] for row in chosen],
            SwapTable(encoder.pieces, encoder.information),
        )
        special = special_ids(encoder)
        swapped = swap_rare_tokens(tokens, special, table, fraction=SWAP_FRACTION, seed=self.seed)
        return read_tokens(encoder, swapped)

    def prompts_about_others(self) -> OtherPrompts | None:
        """Returns the forget prompts with other names and without any, of at most `MOST_SWAPS` prompts.

        Returns:
            None where the request has no subject, and where its prompts are too few to cross-fit.
        """
        encoder, inputs = self.encoder, self.inputs
        holders = [row for row, tokens in enumerate(inputs.tokens) if inputs.subject.intersection(tokens)]
        if not holders or self.is_small:
            return None
        known = {token for tokens in inputs.tokens for token in tokens}
        kin = Kin(encoder.model.get_input_embeddings().weight, encoder.pieces, known, count=SUBJECT_KIN)
        kinds = {token: kin.near(token) for token in sorted(inputs.subject)}
        generator = random.Random(self.seed)  # noqa: S311 - not for secrets
        chosen = generator.sample(holders, min(len(holders), MOST_SWAPS))
        draws = [None, *[generator] * SUBJECT_COPIES]
        made = [replace_tokens(inputs.tokens[row], kinds, draw) for draw in draws for row in chosen]
        return OtherPrompts(read_tokens(encoder, made), torch.tensor(chosen * len(draws)))


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


def score_rows(information: Tensor, inputs: PromptInputs, state: FusionState) -> Tensor:
    """Returns raw channel scores [N, K, C]."""
    features = select_layers(inputs.features, WITHIN_LAYERS)
    return fusion_channels(features, inputs.words, state, information)


def standardise(state: FusionState, channels: Tensor) -> FusionState:
    """Returns the state with center and spread of channels [N, 1, C] and of their weighted sum.

    A channel in which all agree, as views of one prompt do in their words, has its size for a spread: another
    word would outweigh all other channels by thousands of deviations.
    """
    spread, size = channels.std(dim=0, correction=0), channels.abs().mean(dim=0)
    spread = torch.where(spread > SMALLEST_SPREAD * size, spread, size).clamp_min(SMALLEST_SPREAD**2)
    ready = replace(state, center=channels.mean(dim=0), spread=spread)
    sums = combine_channels(channels, ready)
    score_spread = sums.std(dim=0, correction=0).clamp_min(SMALLEST_SPREAD)
    return replace(ready, score_center=sums.mean(dim=0), score_spread=score_spread)
