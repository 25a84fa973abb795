"""Compiled programs that the next process finds: most of what a short run takes is XLA's."""

import jax

from allmodes.files.user_cache import user_cache

LEAST_SECONDS = 0.05  # of compilation, for a program to be kept
MOST_BYTES = 2**30  # of all of them: those that were not used for longest go first


def keep_programs() -> None:
    """Let JAX keep what it compiles in the user's cache folder, unless a folder has been chosen
    (`JAX_COMPILATION_CACHE_DIR`); where none can be written, all goes on without.
    """
    folder = user_cache("jax")
    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
