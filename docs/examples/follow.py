"""Which database to use now: ``Following(directory).side()`` before each request costs one stat.

``python follow.py DIRECTORY`` prints the side for writes whenever it changes.
"""

import json
import os
import sys
import time


class Following:
    def __init__(self, directory: str) -> None:
        self._file = os.path.join(directory, "database.json")  # noqa: PTH118 - one stat, no more
        self._seen: tuple[int, int] | None = None
        self._said: dict[str, dict[str, object]] = {}

    def side(self, purpose: str = "write") -> dict[str, object]:
        """What takes writes, or answers reads. The directory is read, never kept open: its files
        are replaced by a rename."""
        found = os.stat(self._file)  # noqa: PTH116 - as above
        now = (found.st_ino, found.st_mtime_ns)
        if now != self._seen:
            with open(self._file, encoding="utf-8") as stream:  # noqa: PTH123 - as above
                self._said, self._seen = json.load(stream), now
        return self._said[purpose]


def words(side: dict[str, object]) -> str:
    if side["engine"] == "sqlite":
        return f"sqlite {side['path']}"
    return f"postgresql {side['host']}:{side['port']}/{side['database']}"


if __name__ == "__main__":
    following, last = Following(sys.argv[1]), ""
    while True:
        now = words(following.side())
        if now != last:
            print(now, flush=True)
            last = now
        time.sleep(0.05)
