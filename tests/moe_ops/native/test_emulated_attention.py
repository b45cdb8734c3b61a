"""Attention's AVX-512 kernels on a processor that lacks them: compiled against SIMDe, held against the
definition.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
import torch

from moe_ops.latent_attention import PagedRows, pack_latent_heads, reference
from moe_ops.linear import WeightFormat
from moe_ops.native.build import BuildError, compiler
from moe_ops.native.library import COMMON_FLAGS, ISA_FLAGS, SOURCES, sanitizer_flags

HERE = Path(__file__).parent
NAMES = (
    "attention_avx512",
    "attention_avx2",
    "attention_portable",
    "attention",
    "attention_expand",
    "matrix_portable",
    "team",
)
SCALE = ctypes.c_float(0.25)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    try:
        command = compiler()
    except BuildError as error:
        pytest.skip(str(error))
    header = HERE / "emulated_avx512.h"
    probe = subprocess.run(
        [*command, "-E", "-include", str(header), "-x", "c++", "/dev/null", "-o", "/dev/null"],
        capture_output=True,
        check=False,
    )
    if probe.returncode != 0:
        pytest.skip("SIMDe's headers are not installed (Debian: libsimde-dev)")
    flags = [flag for flag in COMMON_FLAGS if flag not in ("-O3", "-fvisibility=hidden")]
    library = tmp_path_factory.mktemp("emulated") / "attention.so"
    subprocess.run(
        [
            *command,
            *flags,
            *sanitizer_flags(),
            "-O0",
            "-w",
            *ISA_FLAGS["_avx2"],
            "-include",
            str(header),
            "-I",
            str(SOURCES),
            "-shared",
            str(HERE / "emulated_attention.cpp"),
            *(str(SOURCES / f"{name}.cpp") for name in NAMES),
            "-o",
            str(library),
        ],
        check=True,
    )
    return ctypes.CDLL(str(library))


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())


@pytest.mark.parametrize(
    ("cache_dtype", "weight_format"), [(torch.float32, "float32"), (torch.bfloat16, "bfloat16")]
)
def test_decode_is_the_definition(
    emulated: ctypes.CDLL, cache_dtype: torch.dtype, weight_format: WeightFormat
) -> None:
    random = torch.Generator().manual_seed(3)
    heads, nope, rotary, value, latent, page = 9, 12, 6, 70, 130, 4
    counts, ends = [1, 5, 7], [300, 66, 7]
    pages, start = [], 0
    for end in ends:
        pages.append(list(range(start, start - -end // page)))
        start = pages[-1][-1] + 1
    cache = torch.randn(start, page, latent + rotary, generator=random).to(cache_dtype)
    rows = PagedRows.build(pages=pages, counts=counts, ends=ends, page_size=page)
    kv_b = torch.randn(heads, nope + value, latent, generator=random) * latent**-0.5
    packed = pack_latent_heads(kv_b, nope=nope, weight_format=weight_format)
    q = torch.randn(sum(counts), heads, nope + rotary, generator=random)
    found, expected = torch.zeros(2, len(q), heads, value).unbind()
    emulated.decode(
        pointer(cache), int(cache_dtype == torch.bfloat16), page, latent, pointer(rows.pages_BP),
        pointer(rows.first_B), pointer(rows.count_B), pointer(rows.end_B), 3, rows.pages_BP.shape[1],
        pointer(packed.kv_b.data), pointer(packed.kv_b.scales), pointer(packed.key.data),
        pointer(packed.key.scales), packed.key.code, pointer(q), pointer(found), len(q), heads, nope, rotary,
        value, SCALE,
    )  # fmt: skip
    reference.latent_decode_(expected, q, cache, rows, heads=packed, scale=SCALE.value)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def test_expanding_is_the_definition(emulated: ctypes.CDLL) -> None:
    random = torch.Generator().manual_seed(4)
    start, tokens, heads, nope, rotary, value, latent, page = 30, 75, 2, 11, 6, 66, 24, 4
    pages = torch.randperm(30, generator=random).to(torch.int32)
    cache = torch.randn(30, page, latent + rotary, generator=random).bfloat16()
    kv_b = torch.randn(heads, nope + value, latent, generator=random) * latent**-0.5
    packed = pack_latent_heads(kv_b, nope=nope, weight_format="float32")
    q = torch.randn(tokens, heads, nope + rotary, generator=random)
    found, expected = torch.zeros(2, tokens, heads, value).unbind()
    emulated.expand(
        pointer(cache), 1, page, latent, pointer(pages), pointer(packed.kv_b.data),
        pointer(packed.kv_b.scales), packed.kv_b.code, pointer(q), pointer(found), start, tokens, heads,
        nope, rotary, value, SCALE,
    )  # fmt: skip
    reference.latent_expand_(expected, q, cache, pages, start, heads=packed, scale=SCALE.value)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
