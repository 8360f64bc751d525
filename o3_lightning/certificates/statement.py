"""The statement of a certificate, in the form of the in-toto attestation framework.

Source: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md. The predicate is our own; no
text of the forget set is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from o3_lightning import __version__
from o3_lightning.certificates.surfaces import LIMIT, Surface
from o3_lightning.common.environment import commit
from o3_lightning.common.errors import InputError
from o3_lightning.store.journal import now_text
from o3_lightning.store.record import PROTECTED, REGISTERED, REVOKED, UNLEARNED, RequestRecord
from o3_lightning.store.store import Store

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:o3-lightning:unlearning-certificate:v1"
DONE = {
    REGISTERED: "The request is registered. Nothing has been done to the model's answers yet.",
    PROTECTED: "Prompts in which the detector recognises the request are refused. No adapter was trained.",
    UNLEARNED: "Prompts in which the detector recognises the request run through its adapter.",
    REVOKED: "The request is revoked: the model answers as if it had never been made.",
}
NOT_DONE = (
    "The base model's weights are unchanged. Its answers are suppressed by a gate, which is not erasure: "
    "whoever has the weights can run them without it, as on the surface 'gate and adapter switched off'.",
    "A surface that is 'not measured' may give the forgotten facts away.",
)


def make_statement(
    store: Store, record: RequestRecord, surfaces: Sequence[Surface], reason: str = "", due: str = ""
) -> dict[str, Any]:
    """Returns the statement about one request.

    Args:
        store: holds the request.
        record: of the request.
        surfaces: verdicts, as from `read_surfaces`.
        reason: the legal basis, in the requester's words; no personal data belongs in it.
        due: the date by which the request has to be honoured, YYYY-MM-DD, or empty.

    Returns:
        An in-toto statement. Its subjects are the base model, the encoder, the forget set and every file of
        the request, with SHA-256 digests.

    Raises:
        InputError: `due` is no date.
    """
    if due:
        try:
            read = date.fromisoformat(due).isoformat()  # it reads weeks, too
        except ValueError:
            read = ""
        if read != due:
            raise InputError(f"expected YYYY-MM-DD, got '{due}'", field="due")
    lines = store.lines()
    history = [line for line in lines if line.request == record.id]
    digests = {
        f"base model {store.base_id}": store.base_digest,
        f"encoder {store.encoder_id}": store.encoder_digest,
        f"forget set of {record.id}": record.digest,
        **{f"requests/{record.id}/{path}": digest for path, digest in sorted(history[-1].files.items())},
    }
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in digests.items()],
        "predicateType": PREDICATE,
        "predicate": {
            "request": {"id": record.id, "status": record.status, "rows": record.rows},
            "reason": reason,
            "due": due,
            "events": [{"event": line.event, "time": line.time} for line in history],
            "journal": {"head": lines[-1].digest, "lines": len(lines)},
            "software": {"name": "o3-lightning", "version": __version__, "commit": commit()},
            "done": DONE[record.status],
            "notDone": list(NOT_DONE),
            "limit": LIMIT,
            "surfaces": [asdict(surface) for surface in surfaces],
            "issued": now_text(),
        },
    }
