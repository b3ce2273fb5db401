"""Command line: one module for each command, read by Fire."""
