"""Load on a Triton server, and whether each answer is its request's: ``python -m glnet_bench.serving_load ADDRESS``.

ADDRESS is the one of the model of images, ``triton://127.0.0.1:8001/glnet_frames``. Clients send pictures of several sizes
with boxes, each as soon as its answer is there, and one in a hundred that cannot be used. The answers to all pictures are
asked for once before, one at a time. An answer under load is swapped where its boxes are not the request's to the bit, and
off where its meshes are not those of before.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_bench.measure.scene import Scene
from glnet_bench.settings import Frame
from glnet_infer.backends.triton.address import Address
from glnet_infer.backends.triton.clients import import_client
from glnet_infer.errors import BackendError

SIZES = ((320, 240), (640, 480), (960, 1280), (1920, 1080))
"""Width and height of the pictures."""

MOST_PERSONS = 3
SAME = 1e-4
"""Metres between an answer under load and the one before. Persons differ by more; batches of other sizes by 0.01 mm."""

BAD_SHARE = 0.01

_VERDICTS = ("good", "refused", "swapped", "off", "failed", "taken")

BETWEEN_READINGS = 1.0
"""Seconds between two readings of memory."""


@dataclass
class Case:
    """A request, and its answer when nothing else was asked.

    Attributes:
        picture: A JPEG.
        boxes: N x 4.
        vertices: The answer's; None for a picture that cannot be used.
    """

    picture: bytes
    boxes: NDArray[np.float64]
    vertices: NDArray[np.float32] | None = None


@dataclass
class Counts:
    """What became of the requests.

    Attributes:
        sent: Requests that were sent.
        seconds: How long each good answer took.
        counts: Number of ``good``, ``refused`` (a bad one, rightly), ``swapped``, ``off``, ``failed``, and ``taken`` (a bad
            one).
        words: Messages of those that failed.
    """

    sent: int = 0
    seconds: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)


class Answer:
    """The answer to one image.

    Args:
        result: What Triton's client gave: arrays whose first side counts images.
    """

    def __init__(self, result: Any) -> None:
        self._result = result

    def as_numpy(self, name: str) -> NDArray[Any]:
        """An output by its name."""
        array: NDArray[Any] = self._result.as_numpy(name)[0]
        return array


class Asker:
    """A client of the model of images, for one thread.

    Raises:
        BackendError: tritonclient is not installed.
    """

    def __init__(self, address: Address) -> None:
        self._module, self._address = import_client("triton"), address
        self._client = self._module.InferenceServerClient(address.place)

    def __call__(self, case: Case, boxes: NDArray[np.float64]) -> Answer:
        """The answer to a case with these boxes."""
        inputs = [
            self._module.InferInput("image", [1, 1], "BYTES"),
            self._module.InferInput("boxes", [1, *boxes.shape], "FP64"),
        ]
        inputs[0].set_data_from_numpy(np.array([[case.picture]], object))
        inputs[1].set_data_from_numpy(boxes[None])
        return Answer(self._client.infer(self._address.model, inputs, client_timeout=self._address.timeout))

    @property
    def refusal(self) -> type[Exception]:
        """What a request that fails raises."""
        kind: type[Exception] = self._module.InferenceServerException
        return kind


def cases() -> list[Case]:
    """Pictures of all sizes, each with 1 to 3 persons, no box like another."""
    made = []
    for number, (width, height) in enumerate(SIZES):
        for persons in range(1, MOST_PERSONS + 1):
            scene = Scene.make(Frame(f"{width}x{height}", width, height), persons)
            shift = number + persons / 8
            made.append(Case(scene.encoded.tobytes(), np.add(scene.boxes, [shift, 0, shift, 0])))
    return made


def bad_cases(good: list[Case]) -> list[Case]:
    """A picture that breaks off, one that is none, and a box without area."""
    first = good[0]
    return [
        Case(first.picture[: len(first.picture) // 2], first.boxes),
        Case(b"no picture", first.boxes),
        Case(first.picture, first.boxes[:, [2, 1, 0, 3]].copy()),
    ]


def client(address: Address, good: list[Case], seed: int, end: float, counts: Counts) -> None:
    """Ask until the end, and judge each answer."""
    asker, generator, bad = Asker(address), np.random.default_rng(seed), bad_cases(good)
    while time.monotonic() < end:
        pool = bad if generator.random() < BAD_SHARE else good
        case = pool[generator.integers(len(pool))]
        # A mark of this request alone, far below what moves a crop: the answer has to repeat it.
        boxes = case.boxes + generator.random() * 1e-9 if pool is good else case.boxes
        counts.sent += 1
        began = time.perf_counter()
        try:
            answer = asker(case, boxes)
        except asker.refusal as error:
            rightly = pool is bad and "INVALID_ARG" in str(error)
            counts.counts["refused" if rightly else "failed"] += 1
            if not rightly:
                counts.words[str(error)[:100]] += 1
            continue
        counts.seconds.append(time.perf_counter() - began)
        if pool is bad:
            counts.counts["taken"] += 1
        else:
            counts.counts[_judged(answer, boxes, case)] += 1


def _judged(answer: Answer, boxes: NDArray[np.float64], case: Case) -> str:
    if not np.array_equal(answer.as_numpy("boxes"), boxes):
        return "swapped"
    vertices, wanted = answer.as_numpy("vertices"), case.vertices
    same = wanted is not None and vertices.shape == wanted.shape and bool(np.abs(vertices - wanted).max() < SAME)
    return "good" if same else "off"


def resident(process: int) -> int:
    """Bytes of a process's memory and its children's, shared pages counted once for each."""
    total, waiting = 0, [process]
    while waiting:
        number = waiting.pop()
        try:
            status = Path(f"/proc/{number}/status").read_text(encoding="ascii", errors="replace")
            for thread in Path(f"/proc/{number}/task").iterdir():
                waiting += map(int, (thread / "children").read_text(encoding="ascii").split())
        except OSError:  # it has ended
            continue
        total += next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:")), 0)
    return total


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="Address of the model of images.")
    parser.add_argument("--clients", type=int, default=32, help="Clients that ask at the same time.")
    parser.add_argument("--seconds", type=float, default=120, help="How long they ask.")
    parser.add_argument("--server", type=int, help="Number of the server's process, whose memory is read.")
    given = parser.parse_args()
    address = Address.parse(given.address)
    if address.scheme != "triton" or given.clients < 1 or not 0 < given.seconds <= 3600:
        parser.error("give triton://HOST:8001/glnet_frames, one client or more, and up to 3600 seconds")
    good, alone = cases(), Asker(address)
    try:
        for case in good:
            case.vertices = alone(case, case.boxes).as_numpy("vertices")
    except alone.refusal as error:
        raise BackendError(f"{address} did not answer.", why=str(error), fix="check that it is ready") from error
    all_counts = [Counts() for _ in range(given.clients)]
    end = time.monotonic() + given.seconds
    threads = [
        threading.Thread(target=client, args=(address, good, seed, end, counts)) for seed, counts in enumerate(all_counts)
    ]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        if given.server:
            memory.append(resident(given.server))
        time.sleep(BETWEEN_READINGS)
    for thread in threads:
        thread.join()
    document = summary(all_counts, memory, given.seconds)
    print(json.dumps(document, indent=2))
    return 0 if not any(document[name] for name in ("lost", *_VERDICTS[2:])) else 1


def summary(all_counts: list[Counts], memory: list[int], seconds: float) -> dict[str, Any]:
    """What a run has found."""
    counts, words = Counter[str](), Counter[str]()
    for each in all_counts:
        counts += each.counts
        words += each.words
    took = np.array([second for each in all_counts for second in each.seconds])
    sent = sum(each.sent for each in all_counts)
    document: dict[str, Any] = {
        "clients": len(all_counts),
        "seconds": seconds,
        "sent": sent,
        **{name: counts[name] for name in _VERDICTS},
        "lost": sent - counts.total(),
        "a_second": round(counts["good"] / seconds, 2),
    }
    if took.size:
        document |= {f"p{part}_ms": round(float(np.percentile(took, part)) * 1000, 1) for part in (50, 99)}
    if memory:
        document["memory_mib"] = {
            "first": memory[0] >> 20,
            "after_a_tenth": memory[len(memory) // 10] >> 20,
            "last": memory[-1] >> 20,
            "most": max(memory) >> 20,
        }
    if words:
        document["words"] = dict(words.most_common(3))
    return document


if __name__ == "__main__":
    sys.exit(main())
