"""Which seeds a whole job takes, so that no episode is evaluated that was recorded or trained on."""

EVALUATION_SEED = 100_000  # above the seeds of collecting and of the robot server
SEED_STRIDE = 10_000  # between those of two --seeds
MAX_SEED = EVALUATION_SEED // SEED_STRIDE - 1
