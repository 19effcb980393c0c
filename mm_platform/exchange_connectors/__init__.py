"""Connectors: synchronous access to venues behind one contract.

Belongs here: clients of venues and what manages several of them. Does not belong here: decisions (the doors), streams and order
life cycles (`live`, `engine`). Importing the package loads no client library.
"""
