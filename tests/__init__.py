"""Tests of every floor; see CONTRIBUTING.md for what goes where."""
