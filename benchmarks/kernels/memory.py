"""How much memory a call takes beyond its inputs."""

import os
from collections.abc import Callable
from typing import Any

import torch


def peak_mib(run: Callable[[], Any], device: torch.device) -> float:
    """Returns the largest memory that a call holds at once, inputs not counted: torch's own count, in MiB."""
    if device.type != "cuda":
        return _cpu_peak(run) / 2**20
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _cpu_peak(run: Callable[[], Any]) -> int:
    """Adds up what the profiler saw allocated and freed, in the order of time."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else each profile writes two lines on the terminal
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        result = run()
    del result
    events: Any = profile.profiler
    changes = [event for event in events.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        peak = max(peak, held)
    return peak
