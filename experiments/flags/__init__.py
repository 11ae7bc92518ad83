"""Flags that several commands share, defined when a command asks for them."""
