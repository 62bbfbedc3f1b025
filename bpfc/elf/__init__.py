"""ELF object files: the only place that knows their format."""
