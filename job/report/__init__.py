"""HTML reports of runs, campaigns and comparisons; each is one self-contained file that opens offline.

Guarantees that a page is made from records alone, and that nothing else is written. Knows nothing of torch.
"""
