"""The fault fuzzer: what becomes of a store when an I/O fails, or when the program is interrupted?

A random workload of the crash fuzzer runs on a device, or under a tracer, that makes one thing go
wrong at a given place; and it is run anew for each place that there is. After each fault the store
must not have lied, must be as it was before or refuse writes, and must be sound when opened anew.

In the order in which to read them:

- `device.py`: a device on which the n-th I/O goes wrong. `lines.py`: the same for lines of cowfs.
- `bytecodes.py`: the same between two bytecodes, only where an interrupt can really come.
- `trial.py`: one workload with one fault, and the verdict. `explore.py`: all faults of a workload.
- `__main__.py`: many workloads on all cores, and how often what was injected.
"""
