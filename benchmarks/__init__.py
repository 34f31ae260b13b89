"""Measurements that print a ratio taken in one run; none is asserted, machines are noisy."""
