"""The machine that the stand-ins share: a GPU's memory and streams, what happened on it, what shall go wrong."""

import threading

import numpy as np

PRIMARY = 0xC0
"""The context that cuda-core makes current."""


class Machine:
    """What the stand-ins share: a GPU's memory and streams, a list of what happened, and what shall go wrong."""

    def __init__(self):
        self.events = []
        self.trouble = set()
        self.memory = {}  # address: (kind, array)
        self.streams = {}
        self.pools = []
        self.contexts = []
        self.configs = []
        self.foreign = []  # work of other libraries on their own streams, which nobody has waited for: (stream, work)
        self.current = threading.local()
        self.places = {}  # of other libraries' arrays, by address: their GPU and context; None where CUDA does not know
        self.during_execution = lambda: None

    def fails(self, what):
        return what in self.trouble

    def at(self, address, size):
        """The bytes at an address, if they belong to one live buffer."""
        for start, (_, array) in self.memory.items():
            if start <= address and address + size <= start + array.size:
                return array[address - start : address - start + size]
        raise RuntimeError(f"CUDA_ERROR_ILLEGAL_ADDRESS: {size} bytes at {address:#x}")

    def new(self, kind, size):
        """The address of fresh memory, aligned as CUDA's is."""
        array = np.full(size + 256, 0xCD, np.uint8)
        array = array[-array.ctypes.data % 256 :][:size]
        self.memory[array.ctypes.data] = (kind, array)
        return array.ctypes.data

    def sizes(self, kind):
        return sorted(array.size for found, array in self.memory.values() if found == kind)

    def need_current(self):
        if self.current_context() != PRIMARY:
            raise RuntimeError("CUDA_ERROR_INVALID_CONTEXT: no device is current in this thread")

    def current_context(self):
        return getattr(self.current, "context", 0)

    def wait(self, consumer, producer):
        """What another library queued on a stream of its own comes before what our stream does next."""
        self.events.append(("wait", producer))
        work = [work for stream, work in self.foreign if stream == producer]
        self.foreign = [pair for pair in self.foreign if pair[0] != producer]
        for each in work:
            self.streams[consumer]._queue(each)

    def named(self, *names):
        return [event for event in self.events if event[0] in names]
