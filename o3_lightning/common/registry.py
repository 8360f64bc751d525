"""Named parts of one kind: the project's own, those of installed packages, and those of plug-in modules."""

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, TypeVar

from o3_lightning.common.errors import InputError

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """Parts by name; the modules and entry points that register them are imported on first use.

    Args:
        kind: of part, in messages, such as "objective".
        modules: of this project; each registers its parts when it is imported.
        names: of the parts that these modules register, so that a name is checked without importing them;
            empty imports them.

    Attributes:
        group: the entry-point group, `o3_lightning.<kind>s`; importing the module of an entry point must
            register the part.

    Example:
        >>> shapes: Registry[type] = Registry("shape")
        >>> @shapes.register("circle")
        ... class Circle: ...
        >>> shapes["circle"].__name__, shapes.names()
        ('Circle', ['circle'])
    """

    def __init__(self, kind: str, modules: Sequence[str] = (), names: Sequence[str] = ()) -> None:
        self.kind, self.group = kind, f"o3_lightning.{kind}s"
        self._own, self._modules, self._parts = tuple(names), list(modules), dict[str, Part]()
        self._packages_loaded = False

    def register(self, name: str) -> Callable[[Part], Part]:
        """Returns a decorator that adds a part and returns it; ValueError if another part has the name."""

        def add(part: Part) -> Part:
            if self._parts.get(name, part) is not part:
                raise ValueError(f"there are two {self.kind}s named '{name}'")
            self._parts[name] = part
            return part

        return add

    def names(self) -> list[str]:
        """Returns all names, those of this project first, in the order of registration."""
        if not self._own:
            self._load_modules()
        self._load_packages()
        return list(dict.fromkeys([*self._own, *self._parts]))

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self.names()

    def __getitem__(self, name: str) -> Part:
        """Returns a part; InputError with all names and the nearest one if there is none of this name."""
        if name not in self:
            near = difflib.get_close_matches(name, self.names(), n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise InputError(f"unknown {self.kind} '{name}'; expected one of {', '.join(self.names())}{hint}")
        if name not in self._parts:
            self._load_modules()
        return self._parts[name]

    def _load_modules(self) -> None:
        """Imports this project's modules that register parts, once."""
        while self._modules:  # emptied before the imports: a module may look while it registers
            importlib.import_module(self._modules.pop(0))

    def _load_packages(self) -> None:
        """Imports the entry points of installed packages, once."""
        if self._packages_loaded:
            return
        self._packages_loaded = True
        for point in entry_points(group=self.group):
            try:
                point.load()
            except Exception as error:
                raise InputError(
                    f"{self.kind} '{point.name}' of a package cannot be loaded: {error}"
                ) from error


def load_plugin(name: str, beside: Path | None = None) -> str:
    """Imports a module that registers parts, once.

    Args:
        name: an importable module, or the path of a .py file.
        beside: a folder in which the file `<name>.py` is looked for first, such as the configuration's.

    Returns:
        The name by which the same module is found again: the path of a file, else the module's name.

    Raises:
        InputError: there is no such module, or importing it fails.
    """
    file = Path(name if name.endswith(".py") else f"{name}.py")
    path = next((place for place in (file, (beside or Path()) / file) if place.is_file()), None)
    module_name = path.stem if path else name
    try:
        if path is None:
            importlib.import_module(name)
        elif module_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(module_name, path)
            assert spec is not None
            assert spec.loader is not None
            sys.modules[module_name] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(module_name, None)
        raise InputError(f"cannot be imported: {error}", field=f"plugin {name}") from error
    return str(path or name)
