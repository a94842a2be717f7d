"""Studies: what the papers claim of score models, measured with the engine that serves."""
