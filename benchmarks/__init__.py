"""How fast it is, side by side with named peers; run each as ``python -m benchmarks.NAME``."""
