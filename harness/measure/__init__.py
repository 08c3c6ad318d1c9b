"""The instrument: devices, runtimes, timing, memory, counting, quality, the machine."""
