"""Map operations as LLVM functions, for every target."""
