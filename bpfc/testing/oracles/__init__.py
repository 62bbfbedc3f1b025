"""What may be wrong with a compiler, one file each, and how it would be noticed."""
