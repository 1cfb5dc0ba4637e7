"""Ready networks, built from the core; no new concepts."""
