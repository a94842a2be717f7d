"""Commands of who runs a service: they reach its Redis, and need no key."""
