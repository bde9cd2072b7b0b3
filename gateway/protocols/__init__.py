"""Client protocols: what the frames of a client mean, and how events are written for it."""
