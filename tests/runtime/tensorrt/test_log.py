"""The log of a TensorRT: one for each module, errors before warnings, and only what is new."""

import threading

from glnet_infer.backends.tensorrt.products import TensorRtLog, log_of


def test_a_module_has_one_log(install):
    one, other = install(), install("tensorrt_rtx")
    found = []
    threads = [threading.Thread(target=lambda: found.append(log_of(one))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1 and log_of(other) is not found[0]


def test_the_log_gives_errors_before_warnings_and_only_new_ones(install):
    trt = install()
    log, severity = TensorRtLog(trt), trt.ILogger.Severity
    log.logger.log(severity.ERROR, "an old one")
    mark = log.mark()
    assert log.since(mark).startswith("TensorRT gave no reason")
    log.logger.log(severity.INFO, "talk")
    log.logger.log(severity.WARNING, "a warning")
    assert log.since(mark) == "a warning"
    for text in ("first\n  line", "second", "second"):
        log.logger.log(severity.ERROR, text)
    log.logger.log(severity.INTERNAL_ERROR, "third")
    assert log.since(mark) == "first line; second; third"
    for number in range(1000):
        log.logger.log(severity.ERROR, f"number {number}")
    assert "number 999" in log.since(mark) and len(log.since(mark)) < 10_000  # it does not grow for ever


def test_the_log_takes_the_real_tensorrts_words(real_rtx):
    log = log_of(real_rtx)
    mark = log.mark()
    assert real_rtx.Runtime(log.logger).deserialize_cuda_engine(b"no engine" * 20) is None
    assert "magicTag" in log.since(mark)
