"""An optimizing eBPF compiler and userspace runtime."""
