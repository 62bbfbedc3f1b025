"""Foreign machines: the same linked images and maps, run by Unicorn or by qemu-user."""
