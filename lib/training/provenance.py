"""What a number was made with: code, versions, device, threads, determinism."""

import hashlib
import os
import platform
import re
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[2]


@cache
def source_digest(paper: str) -> str:
    """sha256 over every source file that a run of `paper` can execute: lib, the paper's folder, the registry."""
    files = sorted(
        path
        for folder in (REPOSITORY / "lib", REPOSITORY / "replications" / paper)
        for path in folder.rglob("*")
        if path.suffix == ".py"
    )
    digest = hashlib.sha256()
    for path in [*files, REPOSITORY / "data" / "registry.yaml"]:
        digest.update(f"{path.relative_to(REPOSITORY).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def commit() -> str:
    """The checked-out commit, with "+changes" if tracked files differ from it; "unknown" outside a git checkout."""
    try:
        text = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=20, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return text.strip()


@cache
def committed_on(commit: str) -> str:
    """The day of a commit, YYYY-MM-DD in UTC; empty where there is no git, or not this commit."""
    commit = commit.removesuffix("+changes")
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        return ""
    command = ["git", "show", "-s", "--format=%cd", "--date=format-local:%Y-%m-%d", commit]
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=20, env=os.environ | {"TZ": "UTC"}
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = {line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")}
    return names.pop() if names else platform.processor() or platform.machine()


def processor() -> str:
    """Vendor, family and model of the CPU: "AuthenticAMD family 25 model 17"; what Python knows of it elsewhere.

    Names as "AMD EPYC" cover several generations, by which numerical libraries choose kernels that round differently.
    """
    pairs = (line.split(":", 1) for line in _cpuinfo() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in pairs}  # of the last one, as they are alike
    if {"vendor_id", "cpu family", "model"} <= fields.keys():
        return f"{fields['vendor_id']} family {fields['cpu family']} model {fields['model']}"
    return platform.processor() or platform.machine()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def stable_provenance(paper: str, device: torch.device) -> dict[str, Any]:
    """The part that is equal whenever a run's bits may be expected to be equal: it stands in results.json."""
    return {
        "source_sha256": source_digest(paper),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "scikit-learn", "scipy", "torch", "torchvision")},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device_name(device),
        "device_type": device.type,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "processor": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
        if device.type == "cuda" else False,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }  # fmt: skip


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far (ru_maxrss: kilobytes on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
