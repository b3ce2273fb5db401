"""Durable, resumable, visible training of YOLO detectors on machines that can vanish."""

__version__ = "0.1.0"
