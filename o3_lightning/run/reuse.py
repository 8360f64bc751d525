"""Reusing the detectors and adapters of a previous run that begins with the same requests.

What is trained for a request depends only on it and on the requests before it, so the store ends up the same
whether the shared requests are trained again or not. Adapters do not depend on detectors, so another detector
leaves them to be reused. Evaluations are repeated, because they cover the later requests too.
"""

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
from o3_lightning.data.stream import RETAIN, RequestStream
from o3_lightning.detector.detector import Detector
from o3_lightning.evaluation.splits import UTILITY, digest_rows
from o3_lightning.models.lora import LORA_CONFIG, LORA_WEIGHTS
from o3_lightning.run.config import RunConfig
from o3_lightning.run.inputs import Inputs, evaluating
from o3_lightning.run.results import BASE_STAGE, stage_names
from o3_lightning.run.unlearner import save_detector
from o3_lightning.store.record import PROTECTED, REGISTERED, UNLEARNED
from o3_lightning.store.store import Store
from o3_lightning.store.view import StoreView
from o3_lightning.training.run_folder import RunFolder, decisive, differing

logger = logging.getLogger(__name__)

FIELD = "take_over"
PROTECT, UNLEARN = "protect", "unlearn"  # stages
# sections that decide what is trained, besides the rows
DETECTOR = "detector"
DECISIVE = ("seed", "refuse_only", "base", DETECTOR, "adapter", "objective", "trainer")


class PreviousRun:
    """The previous run that `config.take_over` names, and the requests with which both runs begin.

    Attributes:
        ids: of the shared requests, in order; at least one.
        kinds: of the stages that are reused: "protect" unless the detectors are configured otherwise, and
            "unlearn" unless requests are only refused.

    Raises:
        InputError: there is no such run, it is this one, something that decides what is trained differs (the
            retained rows included, if the objective needs them), or the first requests of the runs differ.
        StoreError: its store is damaged, or was made for another base model or encoder.
    """

    def __init__(self, config: RunConfig, trainer: Mapping[str, Any], inputs: Inputs) -> None:
        path = Path(config.take_over)
        self.folder = RunFolder(path)
        if path.resolve() == config.folder.resolve():
            raise InputError(
                "expected another run than this one; choose another --name", path=path, field=FIELD
            )
        if not (path / "config.yaml").is_file():
            raise InputError("expected the folder of a run; it has no config.yaml", path=path, field=FIELD)
        now = {**to_plain(config), "trainer": to_plain(dict(trainer))}
        changed = changed_fields(path / "config.yaml", now)
        adapters_alone = not config.refuse_only and {field.split(".")[0] for field in changed} == {DETECTOR}
        if changed and not adapters_alone:
            told = "; ".join(f"{field} is {old} there, {new} here" for field, (old, new) in changed.items())
            raise InputError(f"that run would train otherwise ({told})", path=path, field=FIELD)
        encoder = None if adapters_alone else inputs.encoder.digest
        self.store = StoreView.open(self.folder.store, inputs.base.digest, encoder)
        self.status = PROTECTED if config.refuse_only else UNLEARNED
        self.kinds = tuple([PROTECT] * (not adapters_alone) + [UNLEARN] * (not config.refuse_only))
        self.ids = tuple(self.shared_start(inputs.stream.requests))
        if not self.ids:
            raise InputError(
                "the two runs do not begin with the same finished request", path=path, field=FIELD
            )
        if config.objective.needs_retained_data:
            self.check_retained(inputs.stream)
        logger.info("taken over from %s (%s): %s", path, " and ".join(self.kinds), ", ".join(self.ids))

    def shared_start(self, requests: Sequence[UnlearningRequest]) -> Iterator[str]:
        """Yields the ids of the leading requests that both runs have, at the same positions."""
        records = {record.id: record for record in self.store.records()}
        names = [stage_names([request.id for request in requests], kind) for kind in self.kinds]
        for request, *stages in zip(requests, *names, strict=True):
            record = records.get(request.id)
            if record is None or (record.digest, record.status) != (request.digest, self.status):
                return
            if not all(self.folder.stage_file(name).is_file() for name in stages):
                return
            yield request.id

    def stage(self, name: str) -> dict[str, Any]:
        """Returns the previous run's result of a stage."""
        found = self.folder.result(name)
        if found is None:
            raise InputError(f"lacks the stage {name}", path=self.folder.path, field=FIELD)
        return {**found, "taken_over": str(self.folder.path)}

    def check_retained(self, stream: RequestStream) -> None:
        """Raises InputError if the previous run trained with other retained rows."""
        with evaluating(stream):
            digest = digest_rows(stream.utility[RETAIN])
        if self.stage(BASE_STAGE)[UTILITY][RETAIN]["digest"] != digest:
            message = f"that run would train otherwise (its rows of '{RETAIN}' differ)"
            raise InputError(message, path=self.folder.path, field=FIELD)

    def give(self, request: UnlearningRequest, store: Store) -> None:
        """Copies a request's detector and adapter into a store where it is registered, unless they are there.

        Where the adapter alone is reused, the request has to be protected. The hashes of the answers are
        computed again from the rows, because the previous run may have none.
        """
        id = request.id
        status = store.record(id).status
        if status == REGISTERED:
            detector = Detector.load(self.store.detector_folder(id))
            status = store.protect(id, partial(save_detector, detector, request)).status
        if status == PROTECTED != self.status:
            adapter = self.store.adapter_folder(id)
            store.unlearn(id, partial(copy_adapter, adapter), self.store.record(id).metrics)


def copy_adapter(there: Path, here: Path) -> None:
    """Copies the files of an adapter."""
    for name in (LORA_WEIGHTS, LORA_CONFIG):
        shutil.copyfile(there / name, here / name)


def changed_fields(path: Path, now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns old and new value of each field that decides the training and differs from a previous run."""
    there, here = (
        {key: value for key, value in leaves(decisive(dict(one))) if key.split(".")[0] in DECISIVE}
        for one in (read_mapping(path), now)
    )
    return {key: (old, new) for key, old, new in differing(there, here)}
