"""The crash fuzzer: what may a power cut leave of an image, and does cowfs open it as promised?

A random workload runs on a device that logs what is done to it. From the log come the images that a
power cut may leave; each is opened and judged. Only what cowfs promises is relied on: the `Device`
interface below, the store's methods above, and `check`.

In the order in which to read them:

- `image.py`: the bytes of a device, cheap to copy. `threads.py`: the store's own thread, in turns
  with the program. `device.py`: logs the operations.
- `losses.py`: epochs between flushes, and what a power cut may take from one.
- `model.py`: what a store should hold. `changes.py`, `steps.py`: what a workload consists of.
- `world.py`: parameters and limits under which it runs. `run.py`: runs it, store beside model.
- `generator.py`: draws random steps. `judge.py`: opens what is left, and says what is wrong.
- `rot.py`: copies of metadata that rot meanwhile.
- `explore.py`: all of it for one seed. `case.py`: one failure, to be run again. `shrink.py`: makes
  it short. `__main__.py`: many seeds on all cores.
"""
