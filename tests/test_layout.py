"""The walls between the rooms: no import circle, no arrow upward, and no member without its family
tests.
"""

import re
import subprocess
import sys
from pathlib import Path

import allmodes
from allmodes import targets
from allmodes.diffusion.corrections import CORRECTIONS
from allmodes.diffusion.networks import NETWORKS
from allmodes.methods import METHODS
from allmodes.methods.iwsm.estimators import ESTIMATORS
from allmodes.methods.iwsm.reweighting import REWEIGHTINGS
from allmodes.metrics.registry import METRICS

ROOT = Path(__file__).parent.parent
LINT = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]


def test_no_room_imports_from_above_it_and_no_circle():
    done = subprocess.run(LINT, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contract_sees_an_arrow_upward(tmp_path):
    """Planted in a copy: points, which lie at the bottom, import a method."""
    source = Path(allmodes.__file__).parent
    for path in source.rglob("*.py"):
        copy = tmp_path / "allmodes" / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        planted = "from allmodes.methods.smc import SMC\n" if path.name == "count.py" else ""
        copy.write_text(path.read_text() + planted)
    config = (ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(
        config[config.index("[tool.importlinter]") : config.index("[tool.pyrefly]")]
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {LINT[2]}"
    done = subprocess.run([*LINT[:2], code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "allmodes.points is not allowed to import allmodes.methods" in " ".join(done.stdout.split())


def test_a_public_name_is_no_module():
    """`import allmodes.fit` could otherwise put the module in the place of the function."""
    source = Path(allmodes.__file__).parent
    modules = {path.stem for path in source.glob("*.py")} | {path.parent.name for path in source.glob("*/__init__.py")}
    rooms = {"extend", "interop", "parts"}  # are offered as modules
    assert rooms <= set(allmodes.__all__) & modules
    assert not (set(allmodes.__all__) - rooms) & modules


def test_every_family_is_tested_over_its_registry():
    """To be registered is to be tested: each family's file is parametrised over all members."""
    families = {
        "test_method_family.py": (METHODS, r"METHODS"),
        "test_metric_family.py": (METRICS, r"METRICS"),
        "test_correction_family.py": (CORRECTIONS, r"CORRECTIONS"),
        "test_network_family.py": (NETWORKS, r"NETWORKS"),
        "test_part_family.py": ({**ESTIMATORS, **REWEIGHTINGS}, r"ESTIMATORS"),
        "test_targets.py": (targets.names(), r"with_exact_draws\("),
    }
    for file, (members, registry) in families.items():
        assert len(members) > 1
        assert re.search(rf"parametrize\([^)]*{registry}", (ROOT / "tests" / file).read_text()), file
