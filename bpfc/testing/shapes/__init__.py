"""Statements of random programs: what each leaves is again a program in which every statement may follow.

A statement starts and ends with numbers in NUMBERS, the context or memory in r6. What it reaches through a
pointer it has made sure of before, as programs do that Linux accepts; a daring author forgets to, now and
then.
"""
