"""What made a result: the commit of the source tree, and the machine."""

import platform
import subprocess
from pathlib import Path

import spikeshot
from spikeshot.study.evaluate import available_cores


def commit() -> str | None:
    """Return the commit of the source tree that runs, with + where it was changed; None if none."""
    package = Path(spikeshot.__file__).parent

    def git(*words: str) -> str:
        ended = subprocess.run(
            ["git", "-C", str(package), *words], capture_output=True, text=True, check=True
        )
        return ended.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) / "src" / "spikeshot" != package.resolve():
            return None
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "-s", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> str:
    """Return the number of cores that may be used, and the processor's name, as one text."""
    return f"{available_cores()} cores, {_processor() or platform.machine() or 'unknown processor'}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another system
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")
