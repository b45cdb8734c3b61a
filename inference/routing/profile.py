"""What a fixed-routing profile says, and the file it lives in.

A profile belongs to one checkpoint and one mode: *pool* keeps a set of experts for each layer, *session*
freezes each request's own set after its prompt, *hash* looks experts up by token id, as Hash Layers do
(arXiv:2106.04426).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

Mode = Literal["pool", "session", "hash"]
MODES: tuple[Mode, ...] = ("pool", "session", "hash")
_VERSION = "1"


class ProfileError(ValueError):
    """The profile can not be used with this checkpoint, or its file can not be read."""


@dataclass(frozen=True, slots=True, eq=False)
class RoutingProfile:
    """`experts_LM` (int64, ascending): the kept experts of each routed layer (pool mode).

    `table_LVK` (int16): experts by token id (hash mode). `size`: experts kept per layer (pool, session).
    `coverage_min`: a request whose prompt has a smaller share of its gate mass in the kept experts is
    answered with dynamic routing. `covered`: that share on the text the profile was made from, of `tokens`
    tokens. `checkpoint` names the routers it was made for (`routers_digest`).
    """

    mode: Mode
    domain: str
    checkpoint: str
    layers: int
    experts: int
    size: int
    coverage_min: float
    covered: float
    tokens: int
    experts_LM: torch.Tensor | None = None
    table_LVK: torch.Tensor | None = None

    @property
    def id(self) -> str:
        """`rp_` and the beginning of the SHA-256 of everything the profile says."""
        return f"rp_{hashlib.sha256(self._bytes()).hexdigest()[:20]}"

    def save(self, path: Path) -> None:
        """Write the file, replacing an old one in one step."""
        part = path.with_suffix(".part")
        part.write_bytes(self._bytes())
        part.replace(path)

    def _bytes(self) -> bytes:
        tensors = {"experts": self.experts_LM, "table": self.table_LVK}
        said = {
            "mode": self.mode, "domain": self.domain, "checkpoint": self.checkpoint, "layers": self.layers,
            "experts": self.experts, "size": self.size, "coverage_min": self.coverage_min,
            "covered": self.covered, "tokens": self.tokens,
        }  # fmt: skip
        present = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
        present["version"] = torch.tensor([int(_VERSION)])  # a file without tensors is not valid safetensors
        return save(present, metadata={"profile": json.dumps(said, sort_keys=True)})


def routers_digest(routers: Iterable[torch.Tensor]) -> str:
    """SHA-256 of the router weights of a checkpoint, layer by layer, as fp32: a profile is about these."""
    digest = hashlib.sha256()
    for weight in routers:
        digest.update(weight.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def profile_load(path: Path) -> RoutingProfile:
    """Read a profile file. Raises `ProfileError`."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            said = json.loads((file.metadata() or {})["profile"])
            names = set(file.keys())
            tensors = {name: file.get_tensor(name) for name in ("experts", "table") if name in names}
        profile = RoutingProfile(
            mode=cast(Mode, str(said["mode"])),
            domain=str(said["domain"]),
            checkpoint=str(said["checkpoint"]),
            layers=int(said["layers"]),
            experts=int(said["experts"]),
            size=int(said["size"]),
            coverage_min=float(said["coverage_min"]),
            covered=float(said["covered"]),
            tokens=int(said["tokens"]),
            experts_LM=tensors.get("experts"),
            table_LVK=tensors.get("table"),
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ProfileError(f"{path}: not readable as a routing profile: {error!r}") from error
    _check(profile, path)
    return profile


def _check(profile: RoutingProfile, path: Path) -> None:
    wanted = {"pool": profile.experts_LM, "hash": profile.table_LVK}.get(profile.mode)
    if profile.mode not in MODES:
        raise ProfileError(f"{path}: mode: expected one of {', '.join(MODES)}, found {profile.mode!r}")
    if profile.mode != "session" and wanted is None:
        raise ProfileError(f"{path}: a {profile.mode} profile without its tensor")
    form = (torch.int64, 2) if profile.mode == "pool" else (torch.int16, 3)
    if wanted is not None and (wanted.dtype, wanted.dim()) != form:
        raise ProfileError(f"{path}: its tensor: expected {form[1]} dimensions of {form[0]}")
    if wanted is not None and len(wanted) != profile.layers:
        raise ProfileError(f"{path}: expected {profile.layers} layers, found {len(wanted)}")
    if wanted is not None and (int(wanted.min()) < 0 or int(wanted.max()) >= profile.experts):
        raise ProfileError(f"{path}: names experts beyond 0 … {profile.experts - 1}")
    if not 1 <= profile.size <= profile.experts:
        raise ProfileError(f"{path}: size: expected 1 … {profile.experts}, found {profile.size}")
