"""Lines for a descriptor that may stall, break or be full."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from harp.output import CAPACITY, Output, Outputs

LINE = b"x" * 1023 + b"\n"
PIPE = 1 << 20  # bytes that a pipe may hold: more than Linux gives it


def notice(lines: int) -> bytes:
    return b"%d lines lost\n" % lines


class Pipe:
    """A pipe; `read` takes what is written until the writer's end is closed."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.got = b""
        self._thread = threading.Thread(target=self._read, daemon=True)

    def read(self) -> None:
        self._thread.start()

    def finish(self) -> bytes:
        """Everything that was written."""
        os.close(self.writer)
        self._thread.join()
        os.close(self.reader)
        return self.got

    def _read(self) -> None:
        while data := os.read(self.reader, 1 << 16):
            self.got += data


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def filled(output: Output) -> int:
    """Write more than the pipe and the queue hold; how many lines that were."""
    lines = (PIPE + 3 * CAPACITY) // len(LINE)
    for _ in range(lines):
        output.write(LINE)
    return lines


def test_lines_are_written_in_order(pipe: Pipe) -> None:
    output = Output(pipe.writer, notice)
    pipe.read()
    lines = [b"%d\n" % number for number in range(1000)]
    for line in lines:
        assert output.write(line) == len(line)
        output.flush()
    assert output.drain(5)
    assert pipe.finish() == b"".join(lines)


def test_a_reader_that_stalls_makes_nobody_wait_and_hears_how_much_it_missed(pipe: Pipe) -> None:
    output = Output(pipe.writer, notice)
    lines = filled(output)
    assert not output.drain(0)
    pipe.read()
    assert output.drain(5)
    output.write(b"after\n")
    assert output.drain(5)
    got = pipe.finish().splitlines(keepends=True)
    lost = sum(int(line.split()[0]) for line in got if line.endswith(b" lines lost\n"))
    assert lost + got.count(LINE) == lines
    assert lost > CAPACITY // len(LINE)
    assert got[-1] == b"after\n"


def test_the_end_does_not_wait_longer_than_it_is_told(pipe: Pipe) -> None:
    output = Output(pipe.writer, notice)
    filled(output)
    assert not output.drain(0.01)
    pipe.read()
    assert output.drain(5)
    pipe.finish()


def test_a_line_longer_than_all_that_may_wait_is_written(pipe: Pipe) -> None:
    output = Output(pipe.writer, notice)
    pipe.read()
    output.write(b"x" * 2 * CAPACITY + b"\n")
    assert output.drain(5)
    assert len(pipe.finish()) == 2 * CAPACITY + 1


def test_a_descriptor_that_others_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    output = Output(pipe.writer, notice)
    for _ in range(CAPACITY // len(LINE) // 2):
        output.write(LINE)
    pipe.read()
    assert output.drain(5)
    assert pipe.finish() == LINE * (CAPACITY // len(LINE) // 2)


def test_a_full_disk_loses_lines_without_a_word(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        output = Output(full.fileno(), notice)
        output.write(LINE)
        assert output.drain(5)


def test_what_a_broken_output_lost_is_told_once_it_is_whole_again(pipe: Pipe) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    output = Output(descriptor, notice)
    for _ in range(3):
        output.write(b"lost\nlost\n")
        assert output.drain(5)
    os.dup2(pipe.writer, descriptor)
    pipe.read()
    output.write(b"written\n")
    assert output.drain(5)
    os.close(descriptor)
    assert pipe.finish() == b"written\n6 lines lost\n"


def test_streams_that_lead_to_one_file_share_an_output(tmp_path: Path) -> None:
    outputs = Outputs()
    with (
        (tmp_path / "one").open("wb") as one,
        (tmp_path / "one").open("ab") as again,
        (tmp_path / "two").open("wb") as two,
    ):
        assert outputs.to(one, notice) is outputs.to(again, notice)
        assert outputs.to(one, notice) is not outputs.to(two, notice)
        outputs.to(again, notice).write(b"line\n")
        outputs.drain(5)
    assert (tmp_path / "one").read_bytes() == b"line\n"


class FullOutput(io.BytesIO):
    """A stream without a descriptor and without space."""

    def write(self, data: object) -> int:
        raise OSError

    def flush(self) -> None:
        raise OSError


@pytest.mark.parametrize("stream", [None, FullOutput()], ids=["closed", "full"])
def test_a_stream_that_takes_nothing_fails_nobody(stream: BinaryIO | None) -> None:
    sink = Outputs().to(stream, notice)
    assert sink.write(LINE) == len(LINE)
    sink.flush()


def test_a_stream_without_a_descriptor_is_written_at_once() -> None:
    stream = io.BytesIO()
    Outputs().to(stream, notice).write(LINE)
    assert stream.getvalue() == LINE


def test_lines_that_wait_when_the_process_ends_are_written(tmp_path: Path) -> None:
    code = "import sys; from harp.logs import configure; from harp.settings import Logs; import structlog;"
    code += "configure(Logs('info', 'text')); structlog.get_logger().info('the last words')"
    log = tmp_path / "log"
    with log.open("wb") as file:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 2)],
        )
        os.waitpid(pid, 0)
    assert "the last words" in log.read_text()


def test_a_process_without_standard_error_logs_nowhere() -> None:
    code = "from harp.logs import configure; from harp.settings import Logs; import structlog;"
    code += "configure(Logs('info', 'text')); structlog.get_logger().info('nobody hears')"
    pid = os.posix_spawn(
        sys.executable, [sys.executable, "-c", code], os.environ, file_actions=[(os.POSIX_SPAWN_CLOSE, 2)]
    )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
