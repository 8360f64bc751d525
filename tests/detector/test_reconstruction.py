from o3_lightning.detector import DetectorConfig, fit_detector
from o3_lightning.detector.reconstruction import reconstruct_prompts


def test_centroids_hide_prompts_that_a_kept_bank_gives_away(encoder, people, fitted):
    private = reconstruct_prompts(encoder, fitted, people["forget"], people["held_out"])
    kept = fit_detector(encoder, people["forget"], DetectorConfig(bank="examples"), seed=0)
    open_bank = reconstruct_prompts(encoder, kept, people["forget"], people["held_out"])
    assert open_bank["exact"] == 1.0
    assert private["exact"] == 0.0
    assert private["rows"] <= len(people["forget"]) / 3
