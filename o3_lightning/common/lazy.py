"""Names of a package that are imported when they are first used, so that importing the package stays fast."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def import_on_use(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a module's `__getattr__` (PEP 562).

    Args:
        package: its dotted name.
        modules: for each name the module that defines it, relative to the package.

    Example:
        >>> import_on_use("o3_lightning", {"to_plain": "common.plain"})("to_plain").__name__
        'to_plain'
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get
