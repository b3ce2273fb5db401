"""The report of a run: one self-contained HTML file that opens offline, and what it is made of.

Guarantees that making one reads records alone and writes nothing but ``report.html``. Knows nothing of torch.
"""
