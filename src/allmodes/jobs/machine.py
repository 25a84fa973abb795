"""What a job runs on, and with which versions: for the record beside each figure."""

import importlib.metadata
import os
import platform
import sys

import jax


def versions() -> dict:
    """The versions, and the machine."""
    names = ("allmodes", "jax", "jaxlib", "equinox", "optax", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"versions": {"python": platform.python_version(), **found}, "machine": machine()}


def machine() -> str:
    """Processor, devices and cores in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = jax.devices()
    return f"{platform.machine()} {sys.platform}, {len(devices)} x {devices[0].device_kind}, {cores} cores"
