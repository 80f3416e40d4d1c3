"""The commit and reclaim protocol as a small model, all of whose states are visited.

- `disk.py`: what a power cut may do to blocks. `state.py`: what there is besides.
- `protocol.py`: the protocol, a step a method; docs/reliability.md names the function of cowfs for
  each step.
- `explore.py`: visits every state that can be reached within small bounds.
- `mutations.py`: ways to get the protocol wrong, each of which must be noticed.
- `__main__.py`: `make model`.
"""
