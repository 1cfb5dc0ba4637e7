"""The wheel and the source distribution are whole: what they install runs without the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import eqprop

ROOT = Path(__file__).parents[1]


def test_the_version_has_one_home():
    assert f"version: {eqprop.__version__}" in (ROOT / "CITATION.cff").read_text().splitlines()


def test_wheel_and_source_distribution_install_and_train(tmp_path):
    build = pytest.importorskip("build")
    built = subprocess.run([sys.executable, "-m", "build", "--outdir", tmp_path, ROOT], capture_output=True, text=True)
    if "Could not find a version" in built.stdout + built.stderr:
        pytest.skip(f"{build.__name__} has no setuptools to build with")
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    assert eqprop.__version__ in wheel.name
    assert eqprop.__version__ in source.name
    place = tmp_path / "installed"
    install = ["pip", "install", "-q", "--no-deps", "--no-index", "--target", place, wheel]
    subprocess.run([sys.executable, "-m", *install], check=True)
    environment = os.environ | {
        "PYTHONPATH": str(place),
        "OMP_NUM_THREADS": "1",
        "EQPROP_CACHE": str(tmp_path / "cache"),
    }
    where = [sys.executable, "-c", "import eqprop; print(eqprop.__file__)"]
    said = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert Path(said.strip()).is_relative_to(place)
    train = [
        "-m",
        "eqprop",
        "train",
        "digits",
        "--epochs",
        "1",
        "--train_images",
        "100",
        "--threads",
        "1",
        "--out",
        "run",
    ]
    ran = subprocess.run([sys.executable, *train], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()
