"""Commit single puts without end and print the key of each that is durable: IMAGE DATASET.

Run as a process of its own, to be killed.
"""

import sys
from itertools import count

import cowfs


def main() -> None:
    image, dataset = sys.argv[1:]
    with cowfs.open(image, "w") as store:
        live = store[dataset]
        for number in count():
            key = b"durable %d" % number
            live[key] = bytes(100)
            sys.stdout.buffer.write(key + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
