"""Constants of the detectors that no configuration, preset or ablation varies."""

# Fusion and calibration, chosen on the development tasks of configs/experiments/detector_benchmark.yaml.
FOLDS = 10  # folds of cross-fitting; with few of them a small request looks harder than it is
CENTROIDS = 32  # most centroids of a request
ROWS_PER_CENTROID = 3  # least forget prompts behind a centroid on average; keeps single prompts private
MOST_RANK = 128  # most directions of the covariance at the last layer; 320 separate requests no better
WITHIN_RANK = 64  # most directions of the covariance inside clusters, per layer
WITHIN_LAYERS = 3  # last layers that the channels "whitened" and "subject" read
SWAP_QUANTILE = 0.95  # quantile of the pseudo-negatives' scores that the weight is guarded against
SWAP_DEVIATIONS = 3.5  # standard deviations below the center at which that quantile is put at least
SWAP_FRACTION = 0.3  # distinct tokens of a prompt exchanged in one; such ones score about as real neighbours
NARROWING_GAIN = 0.05  # least gain for which scores are lowered
CLOSE_NEIGHBOURS = -2.5  # median score of made-up neighbours from which a request is hard to tell apart
MOST_SWAPS = 160  # most pseudo-negatives of a kind
SMALLEST_REQUEST = 16  # distinct prompts; with fewer, views of them replace cross-fitting, with a warning
MOST_UNKNOWN = 0.1  # share of tokens that an encoder may not know
LEAST_LETTERS = 1.5  # letters a token; below, words are spelt out
NAME_SHARE = 0.125  # fraction of the forget prompts that hold a name for the request to be about it
NAMED_SHARE = 0.5  # fraction that name people for a prompt about somebody else to be none of the request's
SUBJECT_SHARE = 0.75  # fraction that hold common names; at 0.5 a request about two authors lost some
SUBJECT_KIN = 24  # words of a name's kind that replace it in pseudo-negatives
SUBJECT_COPIES = 2  # such pseudo-negatives per forget prompt, beside one without the name
LEXICAL_BUCKETS = 8192  # size of the hashed word table
LEXICAL_POWER = 2.0  # exponent of a word's information in the lexical channel
CERTAIN_COUNT = 3.0  # forget prompts from which a word counts as fully known
CERTAIN_FRACTION = 0.02  # the same as a fraction of the request; the larger counts

# Baselines.
USED_FRACTION = 0.8  # fraction of the prompts behind the official statistics; official code

# Training of an encoder.
LORA_ALPHA = 32  # LoRA alpha; official code
LORA_RANK = 8  # LoRA rank; official code
LORA_DROPOUT = 0.1  # LoRA dropout; official code
MOMENTUM_QUEUE = 256  # most keys of earlier steps that "moco" keeps as negatives
MASKED_FRACTION = 0.15  # fraction of tokens hidden in the query view and for the masked-LM term; BERT
