"""`o3-lightning detector`: fits the detector of one request alone, outside any store."""

from __future__ import annotations

import sys
import time

from o3_lightning.commands.common import RequestChoice, choose_request, read_run, request_folder
from o3_lightning.run.config import RunConfig

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Writes detector.safetensors and detector.json to `<run>/single/<id>/` and prints its weights.

    Of several processes the first one fits, as it does in a run: a fit takes seconds, and contrastive
    objectives compare the rows of a whole batch.

    Raises:
        InputError: no such request.
    """
    description = "Fits the detector of one request alone, outside any store."
    config, trainer_options, namespace = read_run("detector", description, arguments, RequestChoice)
    from o3_lightning.training.launch import launch

    if launch("detector", arguments, trainer_options):
        return
    from o3_lightning.training.processes import open_processes

    with open_processes() as processes:
        lines = processes.once(lambda: fit(config, namespace["request"]))
        if processes.is_first:
            sys.stdout.write("\n".join(lines) + "\n")


def fit(config: RunConfig, identifier: str) -> list[str]:
    """Fits, saves, measures, and returns what to print."""
    from o3_lightning.detector.encoder import load_configured_encoder
    from o3_lightning.detector.multi import MultiDetector
    from o3_lightning.evaluation.detectors import evaluate_detectors
    from o3_lightning.run.unlearner import fit_request

    stream, request = choose_request(config, identifier)
    encoder = load_configured_encoder(config.detector)
    start = time.perf_counter()
    detector = fit_request(encoder, request, config)
    seconds = time.perf_counter() - start
    folder = request_folder(config, request.id)
    detector.save(folder)
    measured, _ = evaluate_detectors(MultiDetector(encoder, {request.id: detector}), stream)
    lines = [f"{request.id}: {len(request.rows)} prompts, {seconds:.1f} s, {folder}"]
    for split, row in measured[request.id].items():
        separation = "" if row["auroc"] is None else f"  AUROC {row['auroc']:.4f}  FPR95 {row['fpr95']:.4f}"
        lines.append(f"  {split:<20} mean weight {row['mean_weight']:.4f}{separation}")
    return lines
