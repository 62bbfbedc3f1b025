"""From IR to native objects, through LLVM: one file per target."""
