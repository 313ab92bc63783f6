"""What Dagster loads: the component WarmStart, built from the environment and the file of FEATURE_SEED_CONFIG."""

import atexit
import gc

from feature_seed.graph.component import WarmStart
from feature_seed.graph.configuration import configured

# At its end, Python looks for cycles among all that Dagster has made: 0.9 s of every run and command.
atexit.register(gc.freeze)

start = WarmStart(**dict(configured()))
defs = start.definitions()
