"""A store's bill of materials in CycloneDX 1.6 (ML-BOM): models, detectors and adapters with their digests.

Source: https://cyclonedx.org/docs/1.6/json. No text of a forget set is in it.
"""

from __future__ import annotations

import uuid
from typing import Any

from o3_lightning import __version__
from o3_lightning.certificates.statement import DONE, NOT_DONE
from o3_lightning.store.journal import now_text
from o3_lightning.store.record import UNLEARNED, RequestRecord
from o3_lightning.store.store import Store

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
BASE, ENCODER = "base", "encoder"
MODEL = "machine-learning-model"


def make_bom(store: Store) -> dict[str, Any]:
    """Returns the bill of materials of a store, without requests that are revoked or only registered.

    The base model and the encoder have the digests that the store recorded, each detector and adapter those
    of its files. The serial number is derived from the head of the journal.
    """
    records = [record for record in store.records() if record.is_gated]
    models = {BASE: (store.base_id, store.base_digest), ENCODER: (store.encoder_id, store.encoder_digest)}
    head = store.head()
    tool = {"type": "application", "name": "o3-lightning", "version": __version__}
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'urn:o3-lightning:store:{head}')}",
        "version": 1,
        "metadata": {
            "timestamp": now_text(),
            "tools": {"components": [tool]},
            "component": {"type": "application", "bom-ref": "store", "name": "store", "version": head},
        },
        "components": [
            *(
                {"type": MODEL, "bom-ref": ref, "name": name, "hashes": hashes(digest)}
                for ref, (name, digest) in models.items()
            ),
            *(request_component(store, record) for record in records),
        ],
        "dependencies": [
            {"ref": "store", "dependsOn": [*models, *(ref_of(record) for record in records)]},
            *({"ref": ref_of(record), "dependsOn": list(models)} for record in records),
        ],
    }


def request_component(store: Store, record: RequestRecord) -> dict[str, Any]:
    """Returns the detector, and the adapter if there is one, of a request as a model with its files."""
    return {
        "type": MODEL,
        "bom-ref": ref_of(record),
        "name": f"{'detector and adapter' if record.status == UNLEARNED else 'detector'} of {record.id}",
        "modelCard": {"considerations": {"technicalLimitations": [DONE[record.status], *NOT_DONE]}},
        "components": [
            {"type": "file", "name": f"requests/{record.id}/{path}", "hashes": hashes(digest)}
            for path, digest in sorted(store.latest(record.id).files.items())
        ],
    }


def ref_of(record: RequestRecord) -> str:
    """Returns the reference of a request within the bill."""
    return f"request/{record.id}"


def hashes(digest: str) -> list[dict[str, str]]:
    """Returns a SHA-256 digest in the form of CycloneDX."""
    return [{"alg": "SHA-256", "content": digest}]
