"""Maps in memory: creation, the host's operations, and views for Python."""
