"""An earlier run, whose detectors and adapters a run with more requests takes over and does not make again.

Requests arrive one after the other. What was trained for the earlier ones depends on them and on nothing that
comes later, so a run that begins with the same requests ends with the same store, whether it trains those
again or not. Its evaluations are made anew, for they look at the later requests, too.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import leaves, to_plain
from o3_lightning.common.yaml import read_mapping
from o3_lightning.data.requests import UnlearningRequest
from o3_lightning.detector.detector import Detector
from o3_lightning.evaluation.splits import UTILITY, digest_rows
from o3_lightning.models.lora import LORA_CONFIG, LORA_WEIGHTS
from o3_lightning.run.config import RunConfig
from o3_lightning.run.inputs import RETAIN_SPLIT, Inputs, evaluating
from o3_lightning.run.results import BASE_STAGE, stage_names
from o3_lightning.run.unlearner import save_detector
from o3_lightning.store.record import PROTECTED, REGISTERED, UNLEARNED
from o3_lightning.store.store import Store
from o3_lightning.store.view import StoreView
from o3_lightning.training.run_folder import RunFolder, decisive, differing

__all__ = ["Predecessor", "open_predecessor"]

logger = logging.getLogger(__name__)

FIELD = "take_over"
# of what is trained; what the data has to say of it are the rows themselves
DECISIVE = ("seed", "refuse_only", "base", "detector", "adapter", "objective", "trainer")


class Predecessor:
    """What a run takes over from an earlier one: the requests with which both begin.

    Args:
        config: of the present run; its `take_over` names the earlier run's folder.
        trainer: options of `lightning.Trainer` of the present run.
        requests: of the present run, in order.
        base_digest: of the present run's base model.
        encoder_digest: of the present run's encoder.

    Raises:
        InputError: there is no such run, it is this one, something that decides what is trained differs, or
            the two do not begin with the same request.
        StoreError: its store is damaged, or was made for another base model or encoder.
    """

    def __init__(
        self,
        config: RunConfig,
        trainer: Mapping[str, Any],
        requests: Sequence[UnlearningRequest],
        base_digest: str,
        encoder_digest: str,
    ) -> None:
        path = Path(config.take_over)
        self.folder = RunFolder(path)
        if path.resolve() == config.folder.resolve():
            raise InputError(
                "expected another run than this one; choose another --name", path=path, field=FIELD
            )
        if not (path / "config.yaml").is_file():
            raise InputError("expected the folder of a run; it has no config.yaml", path=path, field=FIELD)
        check_same(path / "config.yaml", {**to_plain(config), "trainer": to_plain(dict(trainer))})
        self.store = StoreView.open(self.folder.store, base_digest, encoder_digest)
        self.status = PROTECTED if config.refuse_only else UNLEARNED
        self.kinds = ("protect",) if config.refuse_only else ("protect", "unlearn")
        self.ids = tuple(self.shared_start(requests))
        if not self.ids:
            raise InputError(
                "the two runs do not begin with the same finished request", path=path, field=FIELD
            )

    def shared_start(self, requests: Sequence[UnlearningRequest]) -> Iterator[str]:
        """Yields the ids of the requests, one after the other from the first on, that both runs have."""
        records = {record.id: record for record in self.store.records()}
        names = [stage_names([request.id for request in requests], kind) for kind in self.kinds]
        for request, *stages in zip(requests, *names, strict=True):
            record = records.get(request.id)
            if record is None or (record.digest, record.status) != (request.digest, self.status):
                return
            if not all(self.folder.stage_file(name).is_file() for name in stages):  # at the same place
                return
            yield request.id

    def stage(self, name: str) -> dict[str, Any]:
        """Returns what the earlier run noted of a stage."""
        found = self.folder.result(name)
        if found is None:
            raise InputError(f"lacks the stage {name}", path=self.folder.path, field=FIELD)
        return {**found, "taken_over": str(self.folder.path)}

    def check_retained(self, digest: str) -> None:
        """Refuses a run whose adapters learnt beside other retained rows.

        Args:
            digest: of the rows that a retain objective trains on in the present run.

        Raises:
            InputError: the rows differ, or that run has not measured them.
        """
        if self.stage(BASE_STAGE)[UTILITY][RETAIN_SPLIT]["digest"] != digest:
            message = f"that run would train otherwise (its rows of '{RETAIN_SPLIT}' differ)"
            raise InputError(message, path=self.folder.path, field=FIELD)

    def give(self, request: UnlearningRequest, store: Store) -> None:
        """Puts a registered request's detector and adapter into a store, unless they are there.

        The answers' hashes are made again from the rows, for an earlier run may have none.
        """
        id = request.id
        status = store.record(id).status
        if status == REGISTERED:
            detector = Detector.load(self.store.detector_folder(id))
            status = store.protect(id, partial(save_detector, detector, request)).status
        if status == PROTECTED != self.status:
            adapter = self.store.adapter_folder(id)
            store.unlearn(id, partial(copy_adapter, adapter), self.store.record(id).metrics)


def open_predecessor(config: RunConfig, trainer: Mapping[str, Any], inputs: Inputs) -> Predecessor | None:
    """Returns the run that a configuration takes over from, None where it names none.

    Raises:
        InputError: as `Predecessor`, or that run trained beside other retained rows.
        StoreError: as `Predecessor`.
    """
    if not config.take_over:
        return None
    base, stream, encoder = inputs
    earlier = Predecessor(config, trainer, stream.requests, base.digest, encoder.digest)
    if config.objective.needs_retained_data:
        with evaluating(stream):
            earlier.check_retained(digest_rows(stream.utility[RETAIN_SPLIT]))
    logger.info("taken over from %s: %s", config.take_over, ", ".join(earlier.ids))
    return earlier


def copy_adapter(there: Path, here: Path) -> None:
    """Copies an adapter, byte by byte."""
    for name in (LORA_WEIGHTS, LORA_CONFIG):
        shutil.copyfile(there / name, here / name)


def check_same(path: Path, now: Mapping[str, Any]) -> None:
    """Refuses a run that would have trained something else of the same requests."""
    there, here = (
        {key: value for key, value in leaves(decisive(dict(one))) if key.split(".")[0] in DECISIVE}
        for one in (read_mapping(path), now)
    )
    differ = [f"{key} is {old} there, {new} here" for key, old, new in differing(there, here)]
    if differ:
        raise InputError(f"that run would train otherwise ({'; '.join(differ)})", path=path, field=FIELD)
