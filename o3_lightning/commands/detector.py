"""`o3-lightning detector`: fits the detector of one request alone, outside any store."""

import time

from o3_lightning.commands.choices import RequestChoice
from o3_lightning.commands.common import Call, choose_request, request_folder, run_in_processes


def main(arguments: list[str]) -> None:
    """Writes the detector and the hashed answers to `<run>/single/<id>/` and prints its weights and warnings.

    Of several processes only the first one fits, as in a run: a fit takes seconds, and contrastive objectives
    compare the rows of a whole batch.
    """
    run_in_processes(
        "detector", arguments, lambda call, processes: processes.once(lambda: fit(call)), RequestChoice
    )


def fit(call: Call) -> list[str]:
    """Fits, saves and measures, and returns the lines to print."""
    from o3_lightning.detector.encoder import load_configured_encoder
    from o3_lightning.detector.multi import MultiDetector
    from o3_lightning.evaluation.detectors import evaluate_detectors
    from o3_lightning.run.unlearner import fit_request, save_detector

    config = call.config
    stream, request = choose_request(config, call.namespace["request"])
    encoder = load_configured_encoder(config.detector)
    start = time.perf_counter()
    detector = fit_request(encoder, request, config)
    seconds = time.perf_counter() - start
    folder = request_folder(config, request.id)
    save_detector(detector, request, folder)
    measured, _ = evaluate_detectors(MultiDetector(encoder, {request.id: detector}), stream)
    lines = [f"{request.id}: {len(request.rows)} prompts, {seconds:.1f} s, {folder}"]
    for split, row in measured[request.id].items():
        separation = "" if row["auroc"] is None else f"  AUROC {row['auroc']:.4f}  FPR95 {row['fpr95']:.4f}"
        lines.append(f"  {split:<20} mean weight {row['mean_weight']:.4f}{separation}")
    return [*lines, *(f"  warning: {warning}" for warning in detector.report["warnings"])]
