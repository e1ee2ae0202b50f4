"""What the kernel says about one process: memory, threads, time used, connections. Linux."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_ESTABLISHED = "01"


def rss_mb(pid: int) -> float:
    """Return the resident memory."""
    return round(_status(pid, "VmRSS") / 1024, 1)


def thread_count(pid: int) -> int:
    """Return how many threads there are."""
    return _status(pid, "Threads")


def cpu_seconds(pid: int) -> float:
    """Return the time it has used in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def connection_count(pid: int, port: int) -> int:
    """Return how many TCP connections it has to a port, as to the database's."""
    inodes = {target[8:-1] for target in _open_files(pid) if target.startswith("socket:[")}
    lines = (
        line.split()
        for kind in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
    )
    return sum(
        fields[3] == _ESTABLISHED and int(fields[2].rpartition(":")[2], 16) == port and fields[9] in inodes
        for fields in lines
    )


def _open_files(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:
            continue  # closed meanwhile
    return found


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)
