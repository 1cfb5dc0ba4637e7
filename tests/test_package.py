"""The wheel and the source distribution are whole, and a newcomer's way from the README to a saved network works.

Both in a fresh environment that the README's own command makes. It sees the dependencies of this one, but not eqprop.
"""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import eqprop

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(python|bash)[^\n]*\n(.*?)^```", re.M | re.S)


def readme_steps():
    """The commands of the README's first block, which are joined by &&: an environment, the installation, training."""
    block = FENCE.search((ROOT / "README.md").read_text())
    return block[2].strip().split(" && ")


def test_the_version_has_one_home():
    assert f"version: {eqprop.__version__}" in (ROOT / "CITATION.cff").read_text().splitlines()


def done(command, folder, **more):
    """What a command of the shell prints, in a folder whose environment is the only one."""
    path = f"{folder / '.venv' / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    here = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    here |= {"PATH": path, "OMP_NUM_THREADS": "1", "EQPROP_CACHE": str(folder / "cache"), "PYTHONNOUSERSITE": "1"}
    ran = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=here, text=True, **more)
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A folder with a fresh environment in .venv, made as the README says, from the wheel in place of a checkout."""
    build, folder = pytest.importorskip("build"), tmp_path_factory.mktemp("fresh")
    built = subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], capture_output=True, text=True)
    if "Could not find a version" in built.stdout + built.stderr:
        pytest.skip(f"{build.__name__} has no setuptools to build with")
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    environment, installation, _ = readme_steps()
    done(environment, folder, capture_output=True)
    (folder / "constraints.txt").write_text((ROOT / "constraints.txt").read_text())
    ours = re.sub(r"-e \S+", f"--no-deps --no-index {wheel}", installation)
    assert str(wheel) in ours
    done(ours, folder, capture_output=True)
    site = Path(done(".venv/bin/python -c 'import site; print(site.getsitepackages()[0])'", folder, stdout=-1).strip())
    # What a file .pth names is searched, but files .pth in there are not read, by which an editable eqprop is found.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_wheel_and_source_distribution_are_of_this_version(fresh):
    (wheel,), (source,) = fresh.glob("*.whl"), fresh.glob("*.tar.gz")
    assert eqprop.__version__ in wheel.name
    assert eqprop.__version__ in source.name


def test_the_readme_installs_and_trains(fresh):
    said = done(".venv/bin/python -c 'import eqprop; print(eqprop.__file__)'", fresh, stdout=-1)
    assert Path(said.strip()).is_relative_to(fresh / ".venv")
    train = readme_steps()[2]
    done(f"{train} --epochs 1 --train_images 100 --threads 1 --out run", fresh, capture_output=True)
    assert (fresh / "run" / "model.safetensors").exists()


def test_the_readme_leads_to_the_site_and_the_site_to_the_first_tutorial():
    readme, first = (ROOT / "README.md").read_text(), "tutorials/first-network.md"
    assert f"(docs/{first})" in readme.partition("## ")[0], "before the first heading"
    (show,) = re.findall(r"`([^`]*mkdocs serve[^`]*)`", readme)
    (extra,) = re.findall(r"\.\[(\w+)\]", show)
    assert re.search(rf"^{extra} = ", (ROOT / "pyproject.toml").read_text(), re.M)
    assert first in (ROOT / "docs" / "index.md").read_text()
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    assert re.search(rf"^  - Tutorials:\n      - {first}$", nav, re.M)


def test_the_first_tutorial_takes_a_newcomer_to_a_saved_network_of_their_own_data(fresh):
    """Every block, in the order of the page; those in Python share their names, as on the page."""
    page, session = (ROOT / "docs" / "tutorials" / "first-network.md").read_text(), []
    languages = []
    for language, code in FENCE.findall(page):
        languages.append(language)
        if language == "python":
            session.append(code)
        else:
            session.append(
                f"import subprocess\nsubprocess.run(['bash', '-euo', 'pipefail', '-c', {code!r}], check=True)\n"
            )
    assert {"python", "bash"} == set(languages)
    (fresh / "page.py").write_text("\n".join(session))
    said = done(f"python {shlex.quote('page.py')}", fresh, capture_output=True)
    assert "Verdict: " in said
    for made in ("report.html", "model.safetensors", "summary.json"):
        assert (fresh / "runs" / "houses" / made).exists()
    assert "<!doctype html>" in (fresh / "runs" / "houses" / "report.html").read_text()[:100].lower()
    assert {path.name for path in (fresh / "house-prices").iterdir()} >= {"config.json", "model.safetensors"}
