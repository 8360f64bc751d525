"""The page of a run: self-contained HTML with inline pictures; `report.render_report` returns it."""
