"""The AVX-512 kernels on a processor that lacks them: compiled against SIMDe and held against the definition.

SIMDe is a set of headers (Debian: libsimde-dev). Speed is not tested.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from moe_ops.grouped_mlp import pack_experts
from moe_ops.grouped_mlp.packed import packed_mlp_reference_
from moe_ops.linear import FORMATS, Activations, PackedMatrix, WeightFormat, pack_matrix
from moe_ops.linear.reference import linear as linear_reference
from moe_ops.native.build import BuildError, compiler
from moe_ops.native.library import COMMON_FLAGS, ISA_FLAGS, SOURCES, sanitizer_flags

HERE = Path(__file__).parent
LEVELS = ("bf16", "vnni", "avx512")


def compiler_or_skip() -> tuple[str, ...]:
    try:
        return compiler()
    except BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    command = compiler_or_skip()
    probe = subprocess.run(
        [*command, "-E", "-include", "simde/x86/avx512.h", "-x", "c++", "/dev/null", "-o", "/dev/null"],
        capture_output=True,
        check=False,
    )
    if probe.returncode != 0:
        pytest.skip("SIMDe's headers are not installed (Debian: libsimde-dev)")
    folder = tmp_path_factory.mktemp("emulated")
    names = ("matrix_bf16", "matrix_vnni", "matrix_avx512", "matrix_avx2", "linear", "grouped_mlp", "team")
    sources = [HERE / "emulated.cpp", *(SOURCES / f"{name}.cpp" for name in names)]
    flags = [flag for flag in COMMON_FLAGS if flag not in ("-O3", "-fvisibility=hidden")]
    flags += [
        *sanitizer_flags(),
        "-O0",
        "-w",
        *ISA_FLAGS["_avx2"],
        "-include",
        str(HERE / "emulated_avx512.h"),
        "-I",
        str(SOURCES),
    ]

    def compile_one(source: Path) -> Path:
        out = folder / f"{source.stem}.o"
        subprocess.run([*command, *flags, "-c", str(source), "-o", str(out)], check=True)
        return out

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    library = folder / "emulated.so"
    link = [*command, *sanitizer_flags(), "-shared", "-fopenmp"]
    subprocess.run([*link, *map(str, objects), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())


def emulated_linear(emulated: ctypes.CDLL, x: torch.Tensor, w: PackedMatrix) -> torch.Tensor:
    out = torch.full((len(x), w.outputs), -1.0)
    emulated.linear(
        w.code, w.outputs, w.inputs, pointer(w.data), pointer(w.scales), pointer(x), len(x), pointer(out)
    )
    return out


def met(x: torch.Tensor, w: PackedMatrix, level: str) -> torch.Tensor:
    """`x` as the definition takes it, and rounded to bf16 where that is what the weights meet."""
    rounds = level == "bf16" and w.format == "bfloat16" and w.activations == "int8"
    return x.bfloat16().float() if rounds else x


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("activations", ["int8", "float"])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_linear_is_the_definition_and_keeps_rows_apart(
    emulated: ctypes.CDLL, weight_format: WeightFormat, activations: Activations, level: str
) -> None:
    emulated[f"use_{level}"]()
    random = torch.Generator().manual_seed(7)
    for rows, outputs, inputs in ((1, 80, 256), (2, 70, 130), (8, 33, 77), (13, 20, 300)):
        w = pack_matrix(
            torch.randn(outputs, inputs, generator=random), weight_format, activations=activations
        )
        x = torch.randn(rows, inputs, generator=random)

        together = emulated_linear(emulated, x, w)
        torch.testing.assert_close(together, linear_reference(met(x, w, level), w), rtol=1e-4, atol=2e-4)
        assert torch.equal(together, torch.cat([emulated_linear(emulated, row, w) for row in x.split(1)]))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("weight_format", FORMATS)
def test_grouped_mlp_is_the_definition(
    emulated: ctypes.CDLL, weight_format: WeightFormat, level: str
) -> None:
    emulated[f"use_{level}"]()
    random = torch.Generator().manual_seed(8)
    hidden, width, tokens = 70, 150, 9
    experts = pack_experts(
        torch.randn(4, 2 * width, hidden, generator=random) / 8,
        torch.randn(4, hidden, width, generator=random) / 12,
        weight_format,
    )
    x = torch.randn(tokens, hidden, generator=random)
    weights, chosen = torch.rand(tokens, 3, generator=random).topk(2)
    out = torch.zeros(tokens, hidden)
    expected = packed_mlp_reference_(
        out.clone(), x, experts=experts, weights_TK=weights, experts_TK=chosen, shared=1
    )
    gate_up, down = experts.gate_up, experts.down
    emulated.grouped_mlp(
        gate_up.code, 4, hidden, width, pointer(gate_up.data), pointer(gate_up.scales), pointer(down.data),
        pointer(down.scales), pointer(chosen), pointer(weights), 2, 1, pointer(x), tokens, pointer(out),
    )  # fmt: skip
    rounds = experts.format.startswith("int") or (experts.format, level) == ("bfloat16", "bf16")
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-2 if rounds else 1e-4)


def test_bf16_products_that_are_exact_come_out_exact(emulated: ctypes.CDLL) -> None:
    """Small integers: every product, and every sum in whatever order, is a number of fp32."""
    emulated.use_bf16()
    random = torch.Generator().manual_seed(9)
    for rows, outputs, inputs in ((1, 90, 31), (3, 16, 128), (7, 40, 257)):
        weight_OI = torch.randint(-128, 129, (outputs, inputs), generator=random).float()
        x = torch.randint(-128, 129, (rows, inputs), generator=random).float()
        found = emulated_linear(emulated, x, pack_matrix(weight_OI, "bfloat16"))
        assert torch.equal(found.double(), x.double() @ weight_OI.double().t())


def test_activations_become_the_nearest_bf16_numbers(emulated: ctypes.CDLL) -> None:
    """Ties to even; what is beyond the largest one is infinite, as in torch, and NaN stays what it is."""
    emulated.use_bf16()
    step = 2.0**-7  # between numbers from 1 to 2
    special = [1 + step / 2, 1 + 3 * step / 2, 1 + step * 0.51, -1 - step / 2, 3.4e38, -3.4e38]
    x = torch.tensor([*special, float("inf"), float("-inf"), float("nan"), 0.0, -1.25, 3e-39])
    w = pack_matrix(torch.ones(20, 1), "bfloat16")
    expected = x.bfloat16().float()
    expected[-1] = 0.0  # the instruction takes it for zero
    found = emulated_linear(emulated, x[:, None], w)
    torch.testing.assert_close(found, expected[:, None].expand(-1, 20), rtol=0, atol=0, equal_nan=True)
    kept = emulated_linear(
        emulated, x[:6, None], pack_matrix(torch.ones(20, 1), "bfloat16", activations="float")
    )
    assert torch.equal(kept, x[:6, None].expand(-1, 20))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_with_its_row_in_bf16(emulated: ctypes.CDLL, value: float) -> None:
    emulated.use_bf16()
    x = torch.randn(3, 300)
    x[1, 140] = value
    finite = emulated_linear(emulated, x, pack_matrix(torch.ones(20, 300), "bfloat16")).isfinite()
    assert not finite[1].any()
    assert finite[[0, 2]].all()


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed (Debian: binutils)")
@pytest.mark.parametrize(("level", "instruction"), [("vnni", "vpdpbusd"), ("bf16", "vdpbf16ps")])
def test_the_wide_instructions_are_really_there(tmp_path: Path, level: str, instruction: str) -> None:
    command, out = compiler_or_skip(), tmp_path / f"{level}.o"
    source = SOURCES / f"matrix_{level}.cpp"
    flags = [*COMMON_FLAGS, *ISA_FLAGS[f"_{level}"]]
    result = subprocess.run(
        [*command, *flags, "-w", "-c", str(source), "-o", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized" in result.stderr or "unknown target" in result.stderr:
        pytest.skip(f"{command} does not compile for AVX-512")
    assert result.returncode == 0, result.stderr
    code = subprocess.run(["objdump", "-d", str(out)], capture_output=True, text=True, check=True).stdout
    lines = [line for line in code.splitlines() if instruction in line]
    assert len(lines) > 20
    assert all("zmm" in line for line in lines)
