"""One page that shows a run: self-contained HTML with inline pictures, readable without a network.

`write_report(folder, metrics, details)` in `report` is the way in; `details` holds what the page shows beside
the metrics. Every other file builds one part of the page and computes nothing that is not in its input.
"""
