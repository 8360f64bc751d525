"""Writes requirements.lock (what pip would install, with hashes) and sbom.cdx.json (CycloneDX).

Usage:
    python scripts/supply_chain.py FOLDER [EXTRA ...]

Both come from the report of pip, and hold for the platform and the Python that run it, and the versions in
constraints.txt.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-")


def resolve(extras: list[str]) -> list[dict[str, Any]]:
    """Returns pip's description of the project and of everything that it would install."""
    target = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    command = [*PIP, "--constraint", str(ROOT / "constraints.txt"), target]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603
    return list(json.loads(done.stdout)["install"])


def component(item: dict[str, Any]) -> dict[str, Any]:
    """Returns one package in the form of CycloneDX."""
    name, version = item["metadata"]["name"], item["metadata"]["version"]
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    found = {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}
    if text := item["metadata"].get("license_expression") or item["metadata"].get("license"):
        found["licenses"] = [{"license": {"name": text.splitlines()[0]}}]
    if digest := item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256"):
        found["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return found


def write(folder: Path, items: list[dict[str, Any]]) -> None:
    """Writes both files; the project itself is the subject of the second one."""
    parts = {item["metadata"]["name"].lower(): component(item) for item in items}
    own = parts.pop("o3-lightning")
    others = [parts[name] for name in sorted(parts)]
    lines = [
        f"{part['name']}=={part['version']} --hash=sha256:{part['hashes'][0]['content']}" for part in others
    ]
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": own}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requirements.lock").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps({**bom, "components": others}, indent=2)
    (folder / "sbom.cdx.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), resolve(sys.argv[2:]))
