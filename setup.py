"""Lists the packages; `configs/` is installed as `o3_lightning/configs`. All else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["o3_lightning*"]), *find_packages("kernels"), "o3_lightning.configs"],
    package_dir={"o3_kernels": "kernels/o3_kernels", "o3_lightning.configs": "configs"},
)
