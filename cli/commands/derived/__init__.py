"""Commands that make a model of one that is published."""
