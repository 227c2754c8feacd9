"""For all tests: one thread per process. Tiny networks gain nothing from more, and processes run side by side."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
