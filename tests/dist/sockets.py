"""Bytes that really left this process, as the kernel counts them, and bytes of tensors that live in it."""

from __future__ import annotations

import gc
import os
import socket
import struct
import warnings
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

BYTES_ACKED_AT = 120
"""Of tcpi_bytes_acked in the kernel's struct tcp_info."""


def bytes_sent() -> int:
    """What peers acknowledged on all TCP sockets of this process that are open now."""
    total = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                continue
            copy = socket.socket(fileno=os.dup(int(number)))
        except OSError:
            continue
        with copy:
            if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.type == socket.SOCK_STREAM:
                info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                total += struct.unpack_from("<Q", info, BYTES_ACKED_AT)[0]
    return total


def tensor_bytes() -> int:
    """Of every tensor that Python reaches, storages counted once."""
    gc.collect()
    found: dict[int, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
        for tensor in tensors:
            for one in (tensor, getattr(tensor, "ds_tensor", None)):
                if one is not None and one.device.type == "cpu":
                    storage = one.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that torch's allocator held above where it began, while something ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    now = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most
