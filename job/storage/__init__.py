"""Durable objects in a bucket or in a folder with the same guarantees. Knows nothing of runs, datasets or YOLO."""
