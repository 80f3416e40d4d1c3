"""What a figure depends on: command, processor, memory, kernel, file system, interpreter."""

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path


def describe(directory: Path) -> list[str]:
    """The command line, and a line a fact about this machine and a directory's file system."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    command = " ".join(["tools/bench", *sys.argv[1:]])
    return [
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}",
        f"{_processor()}, {os.cpu_count()} cores, {memory_bytes / (1 << 30):.0f} GiB memory",
        f"Linux {platform.release()}, {file_system(directory)}, "
        f"{platform.python_implementation()} {platform.python_version()}",
    ]


def file_system(directory: Path) -> str:
    """The type of the file system that holds the directory."""
    path = directory.resolve()
    table = Path("/proc/self/mounts").read_bytes()  # as text, a carriage return would end a line
    mounts = [os.fsdecode(line).split(" ") for line in table.split(b"\n")[:-1]]
    holding = [mount[1:3] for mount in mounts if path.is_relative_to(mount[1])]
    _, kind = sorted(holding, key=lambda mount: len(mount[0]))[-1]  # the innermost, last made
    return kind


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
