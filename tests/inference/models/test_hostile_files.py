"""Files that lie: each is read as it is or refused with an error of ours, within little memory."""

from __future__ import annotations

import ctypes
import functools
import json
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.models.checkpoint import CheckpointError
from inference.models.fields import ConfigError
from inference.models.headers import read_headers
from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write

# Bytes that one load may take beyond what the process has; reading the names of a wrong configuration's
# tensors takes some 3 MB. The files hold 1 MB, so that memory of ten times a file is refused.
HEADROOM = 8 * 2**20
VOCABULARY = 16_000
SMALL = {
    **TINY_V3, "num_hidden_layers": 2, "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
    "hidden_size": 16, "vocab_size": VOCABULARY,
    "intermediate_size": 16, "moe_intermediate_size": 8, "num_nextn_predict_layers": 1,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 16]},
}  # fmt: skip
FUZZ = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # fmt: skip

NASTY: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [None, True, -1, 0, 1, 2, 10**9, 2**31, 2**63, 10**18, 10**400, 0.5, -0.5, 1e308, float("nan"),
         float("inf"), "", "fp8", "\ud800", [], [1, 2], {}, {"a": 1}]
    ),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.lists(st.integers(-1, 2**64), max_size=4),
    st.text(max_size=5),
)  # fmt: skip


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clean")
    random_checkpoint_write(path=path, config=SMALL, shards=2)
    load_model(path, mtp=True)
    return path


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "model"))


@pytest.fixture(scope="module", autouse=True)
def _fresh_memory() -> Iterator[None]:
    """Have the C library take what is large from the system each time, not from what was freed before."""
    threshold, mallopt = -3, ctypes.CDLL(None).mallopt
    assert mallopt(threshold, 64 * 2**10)
    yield
    assert mallopt(threshold, 32 * 2**20)  # what it comes to by itself when much is freed


@contextmanager
def little_memory() -> Iterator[None]:
    """Let allocations fail that are much greater than the files. Counts what the process may write to."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    held = int(status["VmData"].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + HEADROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def make_larger(entry: dict[str, Any], times: int) -> None:
    """A lie that agrees with itself."""
    shape, offsets = entry["shape"], entry["data_offsets"]
    if isinstance(shape, list) and shape and isinstance(offsets, list) and len(offsets) == 2:
        shape[0] *= times
        offsets[1] = offsets[0] + (offsets[1] - offsets[0]) * times


@pytest.mark.parametrize("allocate", [bytearray, functools.partial(torch.empty, dtype=torch.uint8)])
def test_memory_of_ten_times_a_file_is_refused(clean: Path, allocate: Callable[[int], object]) -> None:
    size = first_file(clean).stat().st_size
    with little_memory():
        allocate(size)
        with pytest.raises((MemoryError, RuntimeError)):
            _ = [allocate(10 * size) for _ in range(256)]  # the first may find what was freed before


def load_or_refuse(folder: Path) -> str:
    """Nothing but our two errors may come out, with a bearable message."""
    message = ""
    try:
        with little_memory():
            load_model(folder, mtp=True)
    except (CheckpointError, ConfigError) as error:
        message = f"{type(error).__name__}: {error}"
    assert not message or message.startswith(("CheckpointError: ", "ConfigError: "))
    assert len(message) < 5000
    return message


def first_file(folder: Path) -> Path:
    return folder / "model-00001-of-00002.safetensors"


def parts(file: Path) -> tuple[dict[str, Any], bytes]:
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def put(file: Path, header: str, data: bytes) -> None:
    encoded = header.encode("utf-8", "surrogatepass")
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


class TestFuzz:
    @FUZZ
    @given(data=st.data())
    def test_header_entries(self, data: st.DataObject, clean: Path, folder: Path) -> None:
        header, tensors = parts(first_file(clean))
        for _ in range(data.draw(st.integers(1, 3))):
            name = data.draw(st.sampled_from(sorted(header)))
            what = data.draw(
                st.sampled_from(["dtype", "shape", "data_offsets", "whole", "gone", "renamed", "larger"])
            )
            if what == "whole":
                header[name] = data.draw(NASTY)
            elif what in ("gone", "renamed"):
                entry = header.pop(name)
                header |= {data.draw(st.text(max_size=9)): entry} if what == "renamed" else {}
                header = header or {"a": 1}
            elif what == "larger" and isinstance(header[name], dict) and len(header[name]) == 3:
                make_larger(header[name], data.draw(st.sampled_from([1000, 10**6, 10**9])))
            elif isinstance(header[name], dict):
                header[name][what] = data.draw(NASTY)
        put(first_file(folder), json.dumps(header), tensors)
        load_or_refuse(folder)

    @FUZZ
    @given(data=st.data())
    def test_header_bytes(self, data: st.DataObject, clean: Path, folder: Path) -> None:
        raw = bytearray(first_file(clean).read_bytes())
        (length,) = struct.unpack("<Q", raw[:8])
        for place in data.draw(
            st.lists(st.integers(0, 7) | st.integers(0, 7 + length), min_size=1, max_size=4)
        ):
            raw[place] = data.draw(st.integers(0, 255))
        first_file(folder).write_bytes(raw)
        load_or_refuse(folder)

    @FUZZ
    @given(data=st.data())
    def test_truncated_files(self, data: st.DataObject, clean: Path, folder: Path) -> None:
        raw = first_file(clean).read_bytes()
        first_file(folder).write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
        assert load_or_refuse(folder)

    @FUZZ
    @given(data=st.data())
    def test_config_fields(self, data: st.DataObject, folder: Path) -> None:
        config: dict[str, Any] = json.loads(json.dumps(SMALL))
        for _ in range(data.draw(st.integers(1, 2))):
            section: Any = config
            name = data.draw(st.sampled_from(sorted(SMALL)))
            if isinstance(config.get(name), dict) and data.draw(st.booleans()):
                section = config[name]
                name = data.draw(st.sampled_from(sorted(section)))
            section[name] = data.draw(NASTY)
        (folder / "config.json").write_text(json.dumps(config))
        load_or_refuse(folder)

    @FUZZ
    @given(data=st.data())
    def test_index_entries(self, data: st.DataObject, folder: Path, clean: Path) -> None:
        index = json.loads((clean / "model.safetensors.index.json").read_text())
        what = data.draw(st.sampled_from(["map", "value", "gone", "extra"]))
        name = data.draw(st.sampled_from(sorted(index["weight_map"])))
        if what == "map":
            index["weight_map"] = data.draw(NASTY)
        elif what == "value":
            index["weight_map"][name] = data.draw(NASTY)
        elif what == "gone":
            del index["weight_map"][name]
        else:
            index["weight_map"][data.draw(st.text(max_size=5))] = "model-00001-of-00002.safetensors"
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert load_or_refuse(folder)


ONE = '"{}":{{"dtype":"F32","shape":[2],"data_offsets":[{},{}]}}'


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("{" + ONE.format("a", 0, 8) + "," + ONE.format("b", 4, 12) + "}", "overlaps the tensor before it"),
        ("{" + ONE.format("a", 0, 8) + "," + ONE.format("b", 0, 8) + "}", "overlaps the tensor before it"),
        ("{" + ONE.format("a", 0, 8) + "," + ONE.format("b", 12, 20) + "}", "leaves a gap before it"),
        ("{" + ONE.format("a", 4, 12) + "}", "leaves a gap before it"),
        ("{" + ONE.format("a", 0, 8) + "," + ONE.format("a", 8, 16) + "}", "'a' is there twice"),
        ("{" + ONE.format("a", 0, 8) + "}", "the last tensor ends at byte 70, the file at 78"),
        ("{" + ONE.format("a", 8, 0) + "}", r"expected \[start, end\]"),
        ("{" + ONE.format("a", 0, 12) + "}", r"F32 \[2\] takes 8 bytes, not 12"),
        ('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}', "expected dtype, shape"),
        ('{"a":{"dtype":"F7","shape":[2],"data_offsets":[0,8]}}', "unknown dtype 'F7'"),
        ('{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}', "expected a list of sizes"),
        ('{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', "expected a list of sizes"),
        ('{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}', "takes 7378697629483"),
        ('{"a":{"dtype":"F32","shape":[1e3],"data_offsets":[0,8]}}', "expected a list of sizes"),
        ("[" * 100_000, "recursion"),
        ("[]", "no JSON object"),
        ("{", "not readable as safetensors"),
    ],
)
def test_lies_are_told_apart(tmp_path: Path, header: str, complaint: str) -> None:
    put(tmp_path / "a.safetensors", header, b"\0" * 16)
    with pytest.raises(CheckpointError, match=complaint):
        read_headers(tmp_path / "a.safetensors")


@pytest.mark.parametrize("length", [1, 2**31, 2**63, 2**64 - 1])
def test_a_header_longer_than_its_file_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length))
    with pytest.raises(CheckpointError, match=f"a header of {length} bytes does not fit a file of 8"):
        read_headers(tmp_path / "a.safetensors")


def test_what_the_library_writes_is_read(clean: Path) -> None:
    headers = read_headers(first_file(clean))
    embedding = headers["model.embed_tokens.weight"]
    assert (embedding.dtype, embedding.shape) == ("F32", (VOCABULARY, 16))
    assert embedding.end - embedding.start == VOCABULARY * 16 * 4


def change_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change(index["weight_map"])
    file.write_text(json.dumps(index))


def test_an_index_that_disagrees_with_its_files_is_told_in_one_error(folder: Path) -> None:
    def change(weight_map: dict[str, str]) -> None:
        del weight_map["model.norm.weight"]
        weight_map["model.ghost.weight"] = "model-00001-of-00002.safetensors"

    change_index(folder, change)
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "1 named by the index and not in the file: model.ghost.weight (model-00001-of" in message
    assert "1 in a file and not named by the index for it: model.norm.weight (model-00002-of" in message


def test_an_index_with_a_repeated_name_is_refused(folder: Path) -> None:
    text = (
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "a": "model-00002-of-00002.safetensors"}}'
    )
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="'a' is there twice"):
        load_model(folder)


@pytest.mark.parametrize("field", ["num_hidden_layers", "n_routed_experts", "vocab_size", "hidden_size"])
def test_a_configuration_of_a_giant_is_refused_without_its_memory(folder: Path, field: str) -> None:
    config = json.loads((folder / "config.json").read_text()) | {field: 8192}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="tensors do not fit"), little_memory():
        load_model(folder)
