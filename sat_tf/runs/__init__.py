"""What lies in a run's folder, and what else may be named as a checkpoint: found, checked, opened."""
