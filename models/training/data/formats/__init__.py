"""Readers of the formats that image data sets come in: a module for each, all of them giving uint8."""


class DataError(ValueError):
    """A data set is missing or damaged; the message says which file and what is expected of it."""
