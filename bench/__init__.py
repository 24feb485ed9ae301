"""Benchmarks: suites that pytest runs, and the source paper's experiments (`bench.paper`)."""
