"""`import allmodes` is quick because it brings in nothing that training does not need."""

import json
import subprocess
import sys

HEAVY = ["blackjax", "diffrax", "ot", "arviz_stats", "orbax", "tyro", "rich", "matplotlib", "jinja2", "scipy"]


def test_import_brings_in_the_core_only():
    code = "import sys, json, allmodes; allmodes.fit, allmodes.load; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert {"jax", "equinox", "optax", "allmodes.methods.iwsm.method", "allmodes.store.load"} <= set(loaded)
    roots = {name.split(".")[0] for name in loaded}
    assert roots.isdisjoint(HEAVY), roots & set(HEAVY)
    assert done.stderr == ""
