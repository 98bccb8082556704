"""The driver without Ray: what is queued, what happens when actors die, what a later run goes on with."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from glnet_infer import BackendError, BundleError, InputError
from glnet_infer.jobs.actor import Started
from glnet_infer.jobs.items import (
    Chunk,
    Cut,
    Join,
    Orders,
    Outcome,
    Photographs,
    Survey,
    groups,
)
from glnet_infer.jobs.notes import check_boxes, check_record, is_done, keep_cuts, keep_files, read_set_aside, recording_of
from glnet_infer.jobs.run import ITEM_SECONDS, MOST_DEATHS, START_SECONDS, Died, Run
from glnet_infer.video.following import FollowOptions
from glnet_infer.video.sources import Window


@pytest.fixture
def orders(tmp_path):
    (tmp_path / "out/jobs/videos").mkdir(parents=True)
    return Orders("bundle", "0" * 64, "auto", 1, "nanodet", tmp_path / "out", ("npz",), FollowOptions())


def paths(tmp_path, count):
    return [tmp_path / f"{number:03d}.jpg" for number in range(count)]


class Actors:
    """Actors that do what ``do(place, item)`` says, one after the other; ``starts`` are the answers of those that begin."""

    def __init__(self, do, starts=()):
        self.do_it, self.starts = do, list(starts)
        self.began, self.killed, self.waiting = 0, [], {}

    def start(self, place):
        assert place not in self.waiting
        self.began += 1
        self.waiting[place] = self.starts.pop(0) if self.starts else Started("all", "cpu", ())

    def do(self, place, item):
        assert place not in self.waiting, "one thing at a time"
        self.waiting[place] = self.do_it(place, item)

    def answers(self):
        ready = [(place, answer) for place, answer in self.waiting.items() if answer is not None][:1]
        for place, _ in ready:
            del self.waiting[place]
        return ready

    def kill(self, place):
        self.killed.append(place)
        del self.waiting[place]


class Heard:
    def __init__(self):
        self.backends, self.outcomes, self.deaths, self.aside, self.numbers, self.refusals = [], [], [], {}, [], []

    def started(self, started):
        self.backends.append(started.backend)

    def done(self, item, outcome):
        self.outcomes.append((item, outcome))

    def died(self, item, died):
        self.deaths.append(item)

    def refused(self, error):
        self.refusals.append(error)

    def set_aside(self, name, error):
        self.aside[Path(name).name] = error

    def progress(self, done, total):
        self.numbers.append((done, total))

    def kinds(self):
        return [type(item) for item, _ in self.outcomes]


def writing(orders, *, killers=(), deaths=None):
    """Does photographs by making their files; over ``killers`` an actor dies, ``deaths`` times at most."""
    left = dict.fromkeys(killers, deaths)

    def do(place, item):
        for path in item.paths:
            name = Path(path).name
            if name in left and left[name] != 0:
                left[name] = None if left[name] is None else left[name] - 1
                return Died("killed")
            (orders.output / f"{Path(path).stem}.npz").touch()
        return Outcome([{"image": path} for path in item.paths])

    return do


def results(orders):
    return sorted(path.stem for path in orders.output.glob("*.npz"))


def run(orders, actors, photographs=(), videos=(), **options):
    heard = Heard()
    Run(orders, actors, 2, heard, **options)(photographs, videos)
    return heard


# Photographs


def test_photographs_are_done_in_groups_and_once(orders, tmp_path):
    images = paths(tmp_path, 37)
    (orders.output / "003.npz").touch()
    actors = Actors(writing(orders))
    heard = run(orders, actors, groups(images, dict.fromkeys(images), 8))
    assert results(orders) == [f"{number:03d}" for number in range(37)]
    done = [path for item, _ in heard.outcomes for path in item.paths]
    assert sorted(done) == sorted(str(path) for path in images if path.stem != "003")
    assert heard.backends == ["cpu"] and heard.numbers[-1] == (5, 5)
    again = run(orders, actors, groups(images, dict.fromkeys(images), 8))
    assert not again.outcomes and not again.backends


def test_actors_that_die_are_replaced_and_nothing_is_lost(orders, tmp_path):
    images = paths(tmp_path, 40)
    actors = Actors(writing(orders, killers=["005.jpg", "017.jpg", "039.jpg"], deaths=1))
    heard = run(orders, actors, groups(images, dict.fromkeys(images), 8))
    assert results(orders) == [f"{number:03d}" for number in range(40)]
    assert len(heard.deaths) == 3 and actors.began == 2 + 3 and not heard.aside
    told = [entry["image"] for _, outcome in heard.outcomes for entry in outcome.entries]
    assert sorted(told) == sorted(map(str, images))  # also those that were done before their actor died


def test_what_kills_three_actors_is_set_aside_with_its_reason_and_never_tried_again(orders, tmp_path):
    images = paths(tmp_path, 16)
    actors = Actors(writing(orders, killers=["005.jpg"]))
    items = groups(images, dict.fromkeys(images), 8)
    heard = run(orders, actors, items)
    assert results(orders) == [f"{number:03d}" for number in range(16) if number != 5]
    assert len(heard.deaths) == MOST_DEATHS == 3 and list(heard.aside) == ["005.jpg"]
    error = heard.aside["005.jpg"]
    assert isinstance(error, InputError) and error.why == "killed" and "set-aside.json" in error.fix
    assert list(json.loads((orders.output / "jobs/set-aside.json").read_text(encoding="utf-8"))) == [str(images[5])]
    again = run(orders, Actors(writing(orders)), items)
    assert list(again.aside) == ["005.jpg"] and not again.deaths and not again.outcomes
    (orders.output / "jobs/set-aside.json").unlink()
    assert not run(orders, Actors(writing(orders)), items).aside and len(results(orders)) == 16


def test_what_is_set_aside_can_be_read_or_is_refused(orders):
    for content in ("[1]", '{"a": 1}', '{"a": {"what": "b"}}', "{"):
        (orders.output / "jobs/set-aside.json").write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=r"set-aside\.json"):
            read_set_aside(orders.output)


def test_a_photograph_that_hangs_is_ended_and_at_last_set_aside(orders, tmp_path):
    now = [0.0]

    def clock():
        now[0] += ITEM_SECONDS / 10
        return now[0]

    image = paths(tmp_path, 1)
    actors = Actors(lambda place, item: None)
    heard = run(orders, actors, groups(image, dict.fromkeys(image)), clock=clock)
    assert len(actors.killed) == 3 and list(heard.aside) == ["000.jpg"] and "seconds" in heard.aside["000.jpg"].why


@pytest.mark.parametrize("kind", [Survey, Chunk, Join])
@pytest.mark.parametrize("frames", [100, 2400, None])
def test_a_video_that_hangs_is_set_aside_after_a_time_that_its_length_allows(orders, survey, kind, frames):
    now, taken = [0.0], []

    class Patient(Actors):
        def answers(self):
            now[0] += ITEM_SECONDS / 4
            if now[0] > 100 * ITEM_SECONDS:  # nobody ended it
                return [(self.waiting.popitem()[0], Outcome([{"video": survey.video}]))]
            return super().answers()

    def do(place, item):
        if not isinstance(item, kind):
            return Outcome([{"video": item.video}], cuts=[Cut(0.0, frames)])
        taken.append(item)
        return None

    allowed = 1 if kind is Survey else np.inf if frames is None else max(1, frames / 240)
    actors = Patient(do)
    heard = run(orders, actors, videos=[survey], clock=lambda: now[0])
    if np.isinf(allowed):
        assert not actors.killed and not heard.aside
    else:
        assert len(actors.killed) == len(taken) == 3 and list(heard.aside) == ["clip.mp4"]
        assert f"more than {allowed * ITEM_SECONDS:.0f} seconds" in heard.aside["clip.mp4"].why
        assert 3 * allowed * ITEM_SECONDS < now[0] < 3 * (allowed + 1) * ITEM_SECONDS + 10 * ITEM_SECONDS / 4


def test_actors_that_cannot_start_end_the_run(orders, tmp_path):
    items = groups(paths(tmp_path, 4), dict.fromkeys(paths(tmp_path, 4)), 1)
    with pytest.raises(BundleError, match="no bundle"):
        run(orders, Actors(writing(orders), [BundleError("no bundle")] * 2), items)
    with pytest.raises(BackendError, match="died 3 times while it started"):
        run(orders, Actors(writing(orders), [Died("out of memory")] * 6), items)
    heard = run(orders, Actors(writing(orders), [Died("lost")] * 2), items)
    assert results(orders) == ["000", "001", "002", "003"] and heard.deaths == [None, None]


def test_a_machine_that_lacks_what_the_others_have_ends_no_run(orders, tmp_path):
    items = groups(paths(tmp_path, 4), dict.fromkeys(paths(tmp_path, 4)), 1)
    for answers in ([BundleError("no bundle"), Started("all", "cpu", ())], [Died("no memory"), Started("all", "cpu", ())]):
        actors = Actors(writing(orders), answers)
        if isinstance(answers[0], Died):
            actors.starts += [Died("no memory")] * 2
        heard = run(orders, actors, items)
        assert results(orders) == ["000", "001", "002", "003"]
        for path in orders.output.glob("*.npz"):
            path.unlink()
        (refusal,) = heard.refusals
        assert "no bundle" in refusal.what or refusal.why == "no memory"


def test_the_last_actor_that_is_lost_ends_the_run(orders, tmp_path):
    """One machine never had the bundle; the other one lost it when its actor had died."""
    items = groups(paths(tmp_path, 4), dict.fromkeys(paths(tmp_path, 4)), 1)
    answers = [BundleError("never there"), Started("all", "cpu", ()), BundleError("lost")]
    actors = Actors(writing(orders, killers=["001.jpg"], deaths=1), answers)
    with pytest.raises(BundleError, match="lost"):
        run(orders, actors, items)


def test_machines_that_leave_are_not_waited_for_for_ever(orders, tmp_path):
    times = iter(range(0, 100_000, int(START_SECONDS / 3)))
    items = groups(paths(tmp_path, 4), dict.fromkeys(paths(tmp_path, 4)), 1)
    actors = Actors(lambda place, item: Died("its machine left"), [Started("all", "cpu", ())] * 2 + [None] * 9)
    with pytest.raises(BackendError, match="none is at work"):
        run(orders, actors, items, clock=lambda: float(next(times)))
    assert actors.began == 4


def test_a_cluster_without_room_is_not_waited_for_for_ever(orders, tmp_path):
    times = iter(range(0, 100_000, int(START_SECONDS / 3)))
    items = groups(paths(tmp_path, 1), dict.fromkeys(paths(tmp_path, 1)))
    actors = Actors(writing(orders))
    actors.start = lambda place: actors.waiting.update({place: None})
    with pytest.raises(BackendError, match="No actor has started"):
        run(orders, actors, items, clock=lambda: float(next(times)))


# Videos


def filming(orders, starts, done, *, fails=None, dies=None):
    """Does videos by making the chunks' files; ``fails(item)`` and ``dies(item)`` say what goes wrong."""

    cuts = [Cut(start, 240) for start in starts]

    def do(place, item):
        done.append(item)
        if dies and dies(item):
            return Died("killed")
        if fails and fails(item):
            return Outcome([{"video": item.video}], failures={item.video: InputError("it is damaged")})
        if isinstance(item, Survey):
            (orders.output / "jobs/videos" / item.name).mkdir(exist_ok=True)
            keep_cuts(orders, item, cuts)
            return Outcome([{"video": item.video}], cuts=cuts)
        if isinstance(item, Chunk):
            recording_of(orders, item.name, item.number).touch()
        return Outcome([{"video": item.video}])

    return do


@pytest.fixture
def survey(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"video")
    return Survey(str(tmp_path / "clip.mp4"), "clip")


def test_a_video_is_surveyed_seen_in_chunks_and_joined_once(orders, survey):
    done = []
    heard = run(orders, Actors(filming(orders, [0.0, 8.0, 16.5], done)), videos=[survey])
    assert heard.kinds() == [Survey, Chunk, Chunk, Chunk, Join]
    assert [(chunk.number, chunk.window.start) for chunk in done[1:4]] == [(0, None), (1, 8.0), (2, 16.5)]
    for chunk, following in pairwise(done[1:4]):  # each ends with the next one's first frame
        assert following.window.start < chunk.window.end < following.window.start + 1e-9
    assert done[3].window.end is None and done[4].chunks == 3


def test_a_later_run_sees_only_the_chunks_that_are_missing(orders, survey):
    do = filming(orders, [0.0, 8.0, 16.5], [])
    do(0, survey)
    do(0, Chunk(survey.video, "clip", 1, Window(), 240))
    done = []
    run(orders, Actors(filming(orders, [0.0], done)), videos=[survey])
    assert [each.number for each in done if isinstance(each, Chunk)] == [0, 2]
    assert not any(isinstance(each, Survey) for each in done) and isinstance(done[-1], Join)


@pytest.mark.parametrize("change", ["the video", "the file"])
def test_a_video_that_was_changed_is_surveyed_again(orders, survey, change):
    filming(orders, [0.0, 8.0], [])(0, survey)
    if change == "the video":
        Path(survey.video).write_bytes(b"another")
    else:
        (orders.output / "jobs/videos/clip/survey.json").write_text('{"starts": [1]}', encoding="utf-8")
    done = []
    run(orders, Actors(filming(orders, [0.0], done)), videos=[survey])
    assert [type(each) for each in done] == [Survey, Chunk, Join]


def test_a_video_that_fails_is_not_joined_and_ends_no_other(orders, survey, tmp_path):
    other = Survey(str(tmp_path / "other.mp4"), "other")
    (tmp_path / "other.mp4").write_bytes(b"video")
    done = []

    def fails(item):
        return isinstance(item, Chunk) and item.video == survey.video and item.number == 0

    heard = run(orders, Actors(filming(orders, [0.0, 1.0, 2.0], done, fails=fails)), videos=[survey, other])
    assert [each.name for each in done if isinstance(each, Join)] == ["other"]
    assert [name for _, outcome in heard.outcomes for name in outcome.failures] == [survey.video]
    assert heard.numbers[-1][0] == heard.numbers[-1][1]


@pytest.mark.parametrize("kind", [Survey, Chunk, Join])
def test_a_video_that_kills_three_actors_is_set_aside(orders, survey, kind):
    done = []
    do = filming(orders, [0.0, 8.0], done, dies=lambda item: isinstance(item, kind) and getattr(item, "number", 1) == 1)
    heard = run(orders, Actors(do), videos=[survey])
    assert list(heard.aside) == ["clip.mp4"] and len(heard.deaths) == 3
    assert [type(each) for each in done].count(Join) == (3 if kind is Join else 0)
    again = run(orders, Actors(do), videos=[survey])
    assert list(again.aside) == ["clip.mp4"] and not again.outcomes


# What a run notes of itself


def test_results_of_other_options_are_not_mixed(orders, tmp_path):
    result = orders.output / "a.npz"
    check_record(orders, [result])
    result.touch()
    check_record(orders, [result])
    check_record(replace(orders, threads=4, formats=("json",)), [result])  # on which nothing depends
    for other, why in (
        (replace(orders, bundle_hash="1" * 64), "bundle"),
        (replace(orders, backend="onnxruntime-int8"), "backend"),
        (replace(orders, detector="none"), "detector"),
        (replace(orders, detector_hash="2" * 64), "detector_hash"),
        (replace(orders, options=FollowOptions(score=0.7)), r"options\.score \(0\.4 before, 0\.7 now\)"),
        (replace(orders, window=Window(1.0)), r"window \(\[null, null, 1\] before, \[1\.0, null, 1\] now\)"),
        (replace(orders, smooth=False), r"smooth \(true before, false now\)"),
    ):
        with pytest.raises(InputError, match=f"differs in: {why}"):
            check_record(other, [result])


def test_results_of_which_nothing_is_known_are_not_taken_for_this_runs(orders):
    (orders.output / "a.npz").touch()
    with pytest.raises(InputError, match="is there already"):
        check_record(orders, [orders.output / "a.npz"])


def test_results_of_other_boxes_are_not_taken_for_those_of_these(orders, tmp_path):
    one, other = tmp_path / "a.jpg", tmp_path / "b.jpg"
    check_boxes(orders, {one: [[0, 0, 9, 9]]}, [])
    check_boxes(orders, {one: [[0, 0, 9, 9]], other: None}, [one])  # an archive that grew
    check_boxes(orders, {other: [[1, 1, 2, 2]]}, [])  # it is not done yet
    check_boxes(orders, {one: [[0, 0, 9, 9]]}, [one])  # what other runs noted stays
    for boxes in ([[0, 0, 9, 8]], [], None):
        with pytest.raises(InputError, match=r"a\.jpg with other boxes"):
            check_boxes(orders, {one: boxes}, [one])
    (orders.output / "jobs/boxes.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="other boxes"):
        check_boxes(orders, {one: [[0, 0, 9, 9]]}, [one])


BY_FORMAT = {"npz": ["clip.npz"], "bvh": ["clip.track-1.bvh", "clip.track-2.bvh"]}


def test_a_video_is_done_when_all_its_files_are_there_however_many(orders, survey):
    orders = replace(orders, formats=("npz", "bvh"))
    files = {name: [orders.output / each for each in names] for name, names in BY_FORMAT.items()}
    for path in (path for paths in files.values() for path in paths):
        path.touch()
    assert not is_done(orders, survey.video, "clip"), "nobody noted that these are all"
    keep_files(orders, survey.video, "clip", {"npz": files["npz"]})
    assert not is_done(orders, survey.video, "clip") and is_done(replace(orders, formats=("npz",)), survey.video, "clip")
    keep_files(orders, survey.video, "clip", {"bvh": files["bvh"]})
    assert is_done(orders, survey.video, "clip")
    files["bvh"][1].unlink()
    assert not is_done(orders, survey.video, "clip")
    files["bvh"][1].touch()
    Path(survey.video).write_bytes(b"another video")
    assert not is_done(orders, survey.video, "clip")
    Path(survey.video).unlink()
    assert not is_done(orders, survey.video, "clip")


@pytest.mark.parametrize(
    "note", ["{", "[]", '{"files": 3}', '{"files": {"npz": 3}}', '{"files": {"npz": ["../clip.npz"]}}']
)
def test_a_note_of_files_that_cannot_be_read_is_none(orders, survey, note):
    keep_files(orders, survey.video, "clip", {"npz": []})
    (orders.output.parent / "clip.npz").touch()
    path = orders.output / "jobs/done/clip.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    if note.startswith('{"files'):
        note = json.dumps({**known, **json.loads(note)})
    path.write_text(note, encoding="utf-8")
    assert not is_done(orders, survey.video, "clip")


def test_a_run_that_did_nothing_binds_no_later_one(orders):
    check_record(orders, [])
    check_boxes(orders, {Path("a.jpg"): None}, [])
    check_record(replace(orders, smooth=False), [])
    (orders.output / "jobs/videos/clip").mkdir()
    with pytest.raises(InputError, match="differs in: smooth"):
        check_record(orders, [])


def test_of_a_group_only_what_is_missing_is_left(orders, tmp_path):
    group = Photographs((str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")), ([[1, 2, 3, 4]], None))
    both = replace(orders, formats=("npz", "json"))
    for name in ("a.npz", "a.json", "b.json"):
        (orders.output / name).touch()
    assert group.left(both) == Photographs((str(tmp_path / "b.jpg"),), (None,))
    assert group.left(orders) == group.left(both) and group.left(replace(orders, formats=("json",))).paths == ()
