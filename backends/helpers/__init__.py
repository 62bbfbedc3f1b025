"""Helpers as LLVM functions, for every target."""
