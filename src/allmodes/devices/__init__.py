"""Where programs run: devices and processes, blocks that fit a cache, memory, precision."""
