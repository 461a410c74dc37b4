"""The line: sources that give images, triggers, sinks that take decisions away, and what runs them.

Parts need packages of the extra ``line``, each only where it is used.
"""
