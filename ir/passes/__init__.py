"""Optimization passes over the SSA form, one file each; `ir/pipeline.py` names and runs them."""
