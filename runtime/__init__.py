"""Makes native code callable and keeps it alive: images, keys, trampolines, maps, helpers."""
