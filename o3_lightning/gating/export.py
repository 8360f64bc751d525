"""Handing requests over to other programs: plain PEFT adapters, and the gate in a small folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import write_json
from o3_lightning.detector.answers import ANSWER_FILE
from o3_lightning.gating.config import GateConfig
from o3_lightning.store.record import UNLEARNED, RequestRecord
from o3_lightning.store.store import Store

DETECTOR_FILES = ("detector.safetensors", "detector.json", ANSWER_FILE)


def export_requests(
    store: Store, records: Mapping[str, RequestRecord], config: GateConfig, path: str | Path
) -> Path:
    """Writes `adapters/<id>/` in plain PEFT form and `gate/` with the detectors and how they combine.

    Args:
        store: where the requests are.
        records: the requests to hand over, in order.
        config: the gate's settings.
        path: a folder that does not exist yet.

    Returns:
        The folder; it appears whole or not at all.

    Raises:
        InputError: the folder exists, or it cannot be written.
        StoreError: a file of the store is damaged.
    """
    target = Path(path)
    if target.exists():
        raise InputError("exists already; export into a new folder", path=target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.parent / f".{target.name}.tmp"
        shutil.rmtree(draft, ignore_errors=True)  # of an export that was killed
        draft.mkdir()
        try:
            write_export(store, records, config, draft)
            draft.rename(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", path=target) from error
    return target


def write_export(
    store: Store, records: Mapping[str, RequestRecord], config: GateConfig, folder: Path
) -> None:
    """Writes the files of an export into an empty folder."""
    for id, record in records.items():
        detector = folder / "gate" / id
        detector.mkdir(parents=True)
        for name in DETECTOR_FILES:
            source = store.detector_folder(id) / name
            if source.exists():
                shutil.copyfile(source, detector / name)
        if record.status == UNLEARNED:
            shutil.copytree(store.adapter_folder(id), folder / "adapters" / id)
    described = {
        "requests": [{"id": id, "status": record.status} for id, record in records.items()],
        "gate": asdict(config),
        "base": {"id": store.base_id, "digest": store.base_digest},
        "encoder": {"id": store.encoder_id, "digest": store.encoder_digest},
    }
    write_json(folder / "gate" / "gate.json", described)
