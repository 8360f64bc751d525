"""The page of a run: self-contained HTML with inline pictures; `report.write_report` writes it."""
