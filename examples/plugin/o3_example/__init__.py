"""An objective and a metric for o3-lightning; each module registers one of them when it is imported."""
