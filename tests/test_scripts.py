"""The SLURM jobs, which stop the run before the time is up and queue themselves again; lock file and SBOM."""

import json
import os
import runpy
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
# Stand-ins for SLURM's own commands; a run ends with 143 where SIGTERM stops it.
STAND_INS = {
    "srun": 'trap "echo stopped; exit 143" TERM; echo $$ > pid; echo started; while :; do sleep 0.05; done',
    "scancel": 'echo "scancel $*"; kill -TERM "$(cat pid)"',
    "scontrol": 'echo "scontrol $*"',
}


@pytest.mark.parametrize("name", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_a_job_is_bash(name):
    assert subprocess.run(["bash", "-n", str(SCRIPTS / name)], check=False).returncode == 0


@pytest.mark.parametrize("name", ["slurm_ddp.sh", "slurm_fsdp.sh"])
def test_a_job_whose_time_is_up_is_stopped_and_queued_again(name, tmp_path):
    text = (SCRIPTS / name).read_text()
    assert "#SBATCH --signal=B:USR1@120" in text  # the script hears it, not the run
    assert "#SBATCH --requeue" in text
    shutil.copytree(SCRIPTS, tmp_path / "scripts")  # jobs start in the repository's folder
    for command, body in STAND_INS.items():
        path = tmp_path / command
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    job = subprocess.Popen(
        ["bash", f"scripts/{name}"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert job.stdout.readline() == "started\n"
    job.send_signal(signal.SIGUSR1)
    told, _ = job.communicate(timeout=60)
    assert told.splitlines() == ["scancel --signal=TERM 7", "stopped", "scontrol requeue 7"]
    assert job.returncode != 0


def test_lock_file_and_sbom_name_every_package_with_its_hash(tmp_path):
    items = [
        {
            "metadata": {"name": name, "version": "1.0", "license_expression": "MIT"},
            "download_info": {"archive_info": {"hashes": {"sha256": digit * 64}}},
        }
        for name, digit in (("Zebra_x", "1"), ("o3-lightning", "2"), ("ant", "3"))
    ]
    runpy.run_path(str(SCRIPTS / "supply_chain.py"))["write"](tmp_path, items)
    lines = (tmp_path / "requirements.lock").read_text().splitlines()
    assert lines == [f"ant==1.0 --hash=sha256:{'3' * 64}", f"Zebra_x==1.0 --hash=sha256:{'1' * 64}"]
    bom = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert (bom["bomFormat"], bom["metadata"]["component"]["name"]) == ("CycloneDX", "o3-lightning")
    assert [part["purl"] for part in bom["components"]] == ["pkg:pypi/ant@1.0", "pkg:pypi/zebra-x@1.0"]
    assert bom["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "3" * 64}]
