"""What surrounds a start: the folder's format, the command line, and the words of a failure."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest

from stream_app.broker.errors import BrokerStartError
from stream_app.broker.java import Java
from stream_app.broker.launch import (
    NUM_LOG_LINES,
    DataFolder,
    Installation,
    PortRaceError,
    aot_flags,
    file_size,
    format_folder,
    java_command,
    new_kafka_uuid,
    start_error,
    telling_lines,
    write_configuration,
)

JAVA = Java(Path("/java"), 25, "a test")


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "data")
    made.log_file.parent.mkdir(parents=True)
    return made


def test_ids_are_sixteen_bytes_and_never_look_like_an_option() -> None:
    for text in (new_kafka_uuid() for _ in range(300)):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{21}", text)
        assert len(urlsafe_b64decode(text + "==")) == 16


def test_a_folder_is_formatted_once(folder: DataFolder, tmp_path: Path) -> None:
    bootstrap = tmp_path / "bootstrap"
    bootstrap.write_bytes(b"levels")
    format_folder(folder, bootstrap)
    meta = (folder.kafka / "meta.properties").read_text()
    assert (folder.kafka / "bootstrap.checkpoint").read_bytes() == b"levels"
    assert {line.split("=")[0] for line in meta.splitlines()} == {
        "version",
        "cluster.id",
        "directory.id",
        "node.id",
    }
    format_folder(folder, tmp_path / "not even there")
    assert (folder.kafka / "meta.properties").read_text() == meta


def test_the_configuration_follows_the_ports(folder: DataFolder) -> None:
    write_configuration(folder, (1234, 2345), {"num.partitions": "7"})
    text = folder.properties_file.read_text()
    assert "CLIENT://127.0.0.1:1234" in text
    assert "num.partitions=7\n" in text
    assert "sliceflow.log" in folder.logging_file.read_text()


def test_the_command_names_heap_log_jars_and_class(folder: DataFolder) -> None:
    jars = [Path("/a.jar"), Path("/b.jar")]
    command = java_command(JAVA, jars, folder, heap_mb=300, flags=["-XX:AFlag"], main=["the.Class", "arg"])
    assert command[0] == "/java"
    assert {"-Xmx300m", "-XX:AFlag", f"-Dsliceflow.log={folder.log_file}"} <= set(command)
    assert command[-4:] == ["-cp", "/a.jar:/b.jar", "the.Class", "arg"]


@pytest.mark.parametrize("cache", [None, Path("/cache.aot")])
def test_the_class_cache_is_used_if_there_is_one(cache: Path | None) -> None:
    flags = aot_flags(Installation(JAVA, (), Path("/bootstrap"), cache))
    assert ("-XX:AOTCache=/cache.aot" in flags) is (cache is not None)


def test_lines_that_name_an_error_tell_more_than_the_last_ones() -> None:
    text = "INFO one\n\nERROR two\nINFO three\nCaused by: four\nINFO five\n"
    assert telling_lines(text) == ["ERROR two", "Caused by: four"]
    assert telling_lines("INFO one\nINFO two\n") == ["INFO one", "INFO two"]
    assert telling_lines(" \n") == ["(nothing was written)"]


def test_few_and_short_lines_are_shown() -> None:
    shown = telling_lines("\n".join(f"ERROR {number} {'x' * 1000}" for number in range(50)))
    assert len(shown) == NUM_LOG_LINES
    assert shown[-1].startswith("ERROR 49 ")
    assert max(map(len, shown)) == 300


def test_a_failure_names_the_log_and_leaves_earlier_runs_out(folder: DataFolder) -> None:
    folder.log_file.write_text("ERROR of yesterday\n")
    start = file_size(folder.log_file)
    with folder.log_file.open("a") as log:
        log.write("ERROR of today\n")
    error = start_error("Kafka ended", folder, start)
    assert type(error) is BrokerStartError
    assert str(folder.log_file) in str(error)
    assert "of today" in str(error)
    assert "of yesterday" not in str(error)


def test_a_log_that_rolled_over_is_read_whole(folder: DataFolder) -> None:
    folder.log_file.write_text("ERROR new\n")
    assert "ERROR new" in str(start_error("Kafka ended", folder, 10_000))


def test_a_lost_port_is_told_apart(folder: DataFolder) -> None:
    folder.output_file.write_text("java.net.BindException: Address already in use\n")
    assert isinstance(start_error("Kafka ended", folder, 0), PortRaceError)


def test_the_size_of_no_file_is_zero(tmp_path: Path) -> None:
    assert file_size(tmp_path / "missing") == 0
