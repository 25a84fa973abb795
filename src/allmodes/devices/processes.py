"""More than one process of one job: who leads, and what all agree on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from allmodes.errors import JobError

LONGEST = 4096  # bytes of a path


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the other processes of a job: `jax.distributed.initialize`, which finds them by itself
    under SLURM and MPI.

    Before any other use of JAX. The first process waits for the others, and they for it, up to five
    minutes.

    **Raises** `JobError` when there are none to be found, or they do not come.
    """
    # Else SIGTERM, which a job's end sends, would be kept for a check that nothing here makes, and
    # end nothing.
    jax.config.update("jax_enable_preemption_service", False)
    # On processors two programs in flight could meet each other's messages.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        # The last to end may be an hour behind: it alone evaluates the draws.
        jax.distributed.initialize(coordinator, processes, process, shutdown_timeout_seconds=3600)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise JobError(
            f"cannot join the other processes ({reason}). Under SLURM or MPI start each by srun or mpirun; elsewhere "
            "give --coordinator HOST:PORT, --processes and --process-id"
        ) from error


def lost(error: Exception) -> bool:
    """Whether an error says that another process of the job has gone."""
    said = str(error)
    return jax.distributed.is_initialized() and any(word in said for word in ("Gloo", "gloo", "NCCL", "oordination"))


def is_main_process() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return jax.process_index() == 0


def broadcast_text(text: str) -> str:
    """A short text as the leading process has it."""
    if jax.process_count() == 1:
        return text
    padded = np.frombuffer(text.encode().ljust(LONGEST), np.uint8)
    return bytes(np.asarray(broadcast(padded), np.uint8)).decode().rstrip()


def broadcast(tree: Any) -> Any:
    """Numbers and arrays as the leading process has them."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return jax.tree.map(jnp.asarray, broadcast_one_to_all(tree))
