"""The store on disk: requests, detectors, adapters, and a journal with the digest of every file."""

from o3_lightning.store.record import PROTECTED, REGISTERED, REVOKED, UNLEARNED, RequestRecord
from o3_lightning.store.store import Store
from o3_lightning.store.verify import verify_store
from o3_lightning.store.view import StoreView

__all__ = [
    "PROTECTED",
    "REGISTERED",
    "REVOKED",
    "UNLEARNED",
    "RequestRecord",
    "Store",
    "StoreView",
    "verify_store",
]
