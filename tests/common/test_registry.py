"""Registries: names, entry points of installed packages, and plug-in files."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from o3_lightning.common import registry as module
from o3_lightning.common.errors import InputError
from o3_lightning.common.registry import Registry, load_plugin


def test_an_unknown_name_tells_the_nearest_one():
    shapes = Registry("shape")
    shapes.register("circle")(1)
    with pytest.raises(InputError, match=r"expected one of circle; did you mean 'circle'"):
        shapes["cirle"]


def test_a_name_belongs_to_one_part():
    shapes = Registry("shape")
    shapes.register("circle")(1)
    with pytest.raises(ValueError, match="two shapes named 'circle'"):
        shapes.register("circle")(2)


def test_entry_points_are_loaded_once_and_only_when_somebody_looks(monkeypatch):
    shapes, loads = Registry("shape"), []

    def load():
        loads.append(1)
        shapes.register("square")(4)

    points = {"o3_lightning.shapes": [SimpleNamespace(name="square", load=load)]}
    monkeypatch.setattr(module, "entry_points", lambda group: points[group])
    assert not loads
    assert shapes["square"] == 4
    assert shapes.names() == ["square"]
    assert loads == [1]


def test_a_broken_package_is_named(monkeypatch):
    shapes = Registry("shape")
    broken = SimpleNamespace(name="square", load=lambda: 1 / 0)
    monkeypatch.setattr(module, "entry_points", lambda group: [broken])
    with pytest.raises(InputError, match="shape 'square' of a package cannot be loaded: division by zero"):
        shapes.names()


def test_a_plugin_is_a_file_beside_the_configuration_or_a_module(tmp_path):
    (tmp_path / "my_plugin_file.py").write_text("VALUE = 3\n")
    load_plugin("my_plugin_file", tmp_path)
    assert sys.modules.pop("my_plugin_file").VALUE == 3
    load_plugin("json")
    with pytest.raises(InputError, match=r"plugin nowhere_to_be_found.*cannot be imported"):
        load_plugin("nowhere_to_be_found")
    (tmp_path / "broken_plugin.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match="division by zero"):
        load_plugin("broken_plugin", tmp_path)
    assert "broken_plugin" not in sys.modules


REGISTRIES = (
    ("objectives.registry", "FORGET"),
    ("objectives.registry", "RETAIN"),
    ("metrics.registry", "METRICS"),
    ("detector.base", "DETECTORS"),
)


def test_names_known_beforehand_are_those_that_the_modules_register():
    code = "".join(
        f"from o3_lightning.{module} import {name} as parts; known = parts.names(); "
        "assert all(parts[name] for name in known); assert parts.names() == known\n"
        for module, name in REGISTRIES
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
