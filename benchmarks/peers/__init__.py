"""Adapters of other runtimes: what they are given is laid out here, what they are is built by whoever compares."""
