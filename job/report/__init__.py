"""HTML: a run's report, a campaign's page, a comparison; each one self-contained file that opens offline.

Guarantees that a page is made from records alone, and that nothing else is written. Knows nothing of torch.
"""
