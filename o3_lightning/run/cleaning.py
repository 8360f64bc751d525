"""Deletes what a run's folder keeps of a request beside the store: texts of results, unfinished adapters."""

import shutil
from pathlib import Path
from typing import Any

from o3_lightning.common.files import read_result, write_json
from o3_lightning.run.pipeline import UNFINISHED

RESULTS = ("stages/*.json", "*.json")  # may hold samples or mistakes
ANOTHERS = "other_requests"  # split of mistakes whose prompts may be those of any request


def clean_run(folder: Path, request: str) -> list[str]:
    """Deletes the texts of a request from a run's folder, and returns one line per change.

    Sample answers of the request, prompts listed as mistakes of its detector, and other detectors' mistakes
    on forget prompts are deleted; figures stay. The report is deleted, too: `report` writes it again from
    the results. Pages of `report --compare` and what was sent to Weights & Biases are not found.

    Raises:
        InputError: a result file is damaged.
    """
    done = []
    for path in sorted(path for pattern in RESULTS for path in folder.glob(pattern)):
        content = read_result(path)
        cleaned = without_texts(content, request)
        if cleaned != content:
            write_json(path, cleaned, private=True)
            done.append(f"{path}: texts of '{request}' deleted")
    drafts = [folder / "single" / request, folder / UNFINISHED / f"{request}.safetensors"]
    killed = sorted(folder.rglob(".*.tmp"))  # drafts of a process that was killed while it wrote
    for left in (folder / "report.html", *drafts, *sorted(folder.glob("*.parts")), *killed):
        if left.exists():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
            done.append(f"{left}: deleted")
    return done


def without_texts(result: dict[str, Any], request: str) -> dict[str, Any]:
    """Returns a result without a request's samples and mistakes."""
    kept, requests, mistakes = dict(result), result.get("requests"), result.get("mistakes")
    if isinstance(requests, dict) and request in requests:  # a list in metrics.json
        silent = {split: {**part, "samples": []} for split, part in requests[request].items()}
        kept["requests"] = {**requests, request: silent}
    if mistakes:
        kept["mistakes"] = {
            name: [] if name == request else [row for row in rows if row["split"] != ANOTHERS]
            for name, rows in mistakes.items()
        }
    return kept
