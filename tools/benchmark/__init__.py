"""Benchmarks of cowfs beside its peers.

`engines/` puts each store behind one small interface. A suite (`kv`, `cp`) times workloads on
them, interleaved round by round, and `report` prints what came out beside what is required.
"""
