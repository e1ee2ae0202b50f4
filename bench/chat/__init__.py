"""Measures chat runs: the figures of the streams, each beside a raw comparison in the same run."""
