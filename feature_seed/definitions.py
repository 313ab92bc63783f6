"""What Dagster loads: the component WarmStart, built from the environment and the file of FEATURE_SEED_CONFIG."""

from feature_seed.graph.component import WarmStart
from feature_seed.graph.configuration import configured

start = WarmStart(**dict(configured()))
defs = start.definitions()
