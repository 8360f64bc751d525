"""The store on disk: requests, detectors and adapters, and a journal that vouches for every byte of them."""

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
