"""Every test runs with shapes and types checked at run time, and shares compiled programs with all
others."""

import os
from pathlib import Path

# Nearly all the time of the suite is XLA's, which compiles programs that run for milliseconds. So
# they are kept on disk, for both processes of the suite, for those that tests start, and for the
# next time; and they are compiled quickly: a search in five dimensions takes 12.6 s of processor
# time as XLA would have it, 9.5 without most optimisations, 4.1 with its older emitter of loops. By
# the environment, and before JAX is imported, so that processes which tests start do alike: what
# they and this one compute is compared to the last bit.
CACHE = Path(__file__).parent.parent / ".cache" / "jax"
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if QUICK not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))

import gc  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Before the first import of the package, so that each function of it is checked at each call.
install_import_hook("allmodes", "beartype.beartype")

from allmodes.devices import compiled  # noqa: E402

# A quarter of what the suite takes once all is compiled is the search for garbage, as tracing
# leaves many small objects that live long: the library looks for it after each compilation, and
# Python after each 2000 objects. Memory is no subject here.
gc.collect = lambda *_: 0
gc.set_threshold(100_000, 20, 100)


def pytest_collection_modifyitems(items):
    """The files that train first: those that take moments are left for the end, when one of the two
    processes waits for the other."""
    long = {item.path for item in items if item.get_closest_marker("trains")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture
def optimised():
    """XLA optimises as it does for users: where the precision of floats is the subject."""
    compiled.forget()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    compiled.forget()
