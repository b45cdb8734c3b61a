"""The charter file: the consortium's rules as data, read strictly."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from core.money import PPM, dollars_to_nano
from inference.messages import canonical_bytes

Slug = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
Country = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}$")]
Dollars = Annotated[str, msgspec.Meta(pattern=r"^\d{1,6}(\.\d{1,9})?$")]


class CharterError(ValueError):
    """The charter cannot be used; the message names the field and says what is wrong with it."""


class PolicyRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The routing policy; meanings and units are those of ``routing.snapshot.Policy``."""

    name: Word
    price_weight: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    load_weight: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    half_cost_ppm: Annotated[int, msgspec.Meta(ge=0, le=100 * PPM)]


class OfferTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A partner's prices for a release in dollars per 1M tokens, as exact decimal text."""

    release: Slug
    input: Dollars
    cached_input: Dollars
    output: Dollars

    def nano_per_mtok(self) -> tuple[int, int, int]:
        """Input, cached input and output prices in nano-dollars per 1M tokens."""
        return dollars_to_nano(self.input), dollars_to_nano(self.cached_input), dollars_to_nano(self.output)


class PoolTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pool: one region, one kind of accelerator."""

    slug: Slug
    region: Word
    accelerator: Word


class PartnerTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A member cloud with its offers and pools."""

    slug: Slug
    name: Name
    jurisdiction: Country
    offers: tuple[OfferTerms, ...]
    pools: tuple[PoolTerms, ...]


class CharterDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole charter. ``levy_ppm`` is the foundation's share on top of a partner's price."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    consortium: Name
    foundation: Name
    levy_ppm: Annotated[int, msgspec.Meta(ge=0, le=PPM)]
    policy: PolicyRules
    partners: Annotated[tuple[PartnerTerms, ...], msgspec.Meta(min_length=1)]


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a mapping with the same key twice, where the second would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping of ``node``. Raises CharterError for a repeated key."""
        seen: set[str] = set()
        for key, _value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise CharterError(f"line {line}: the field {key.value!r} appears twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def charter_load(path: Path) -> CharterDocument:
    """The charter in the YAML file ``path``. Raises CharterError naming the field, OSError without it."""
    return charter_parse(path.read_text(encoding="utf-8"), name=path.name)


def charter_parse(text: str, *, name: str = "charter") -> CharterDocument:
    """The charter in ``text``. Raises CharterError naming the field."""
    loader = _StrictLoader(text)
    try:
        return charter_convert(loader.get_single_data())
    except (yaml.YAMLError, CharterError) as error:
        raise CharterError(f"{name}: {error}") from error
    finally:
        loader.dispose()


def charter_convert(raw: object) -> CharterDocument:
    """The charter in plain data, such as the stored document. Raises CharterError naming the field."""
    try:
        document = msgspec.convert(raw, CharterDocument)
    except msgspec.ValidationError as error:
        hint = " (quote amounts of money)" if "got `float`" in str(error) else ""
        raise CharterError(f"{error}{hint}") from error
    _require_unique("partners[].slug", (partner.slug for partner in document.partners))
    _require_unique("pools[].slug", (pool.slug for partner in document.partners for pool in partner.pools))
    for partner in document.partners:
        _require_unique(f"offers[].release of {partner.slug}", (offer.release for offer in partner.offers))
    return document


def charter_to_dict(document: CharterDocument) -> Mapping[str, Any]:
    """Plain JSON data, the inverse of ``charter_convert``."""
    plain: dict[str, Any] = msgspec.to_builtins(document)
    return plain


def charter_digest(document: CharterDocument) -> str:
    """SHA-256 over the canonical form: comments and layout of the file do not count."""
    return hashlib.sha256(canonical_bytes(charter_to_dict(document))).hexdigest()


def _require_unique(field: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise CharterError(f"{field}: {value!r} appears twice")
        seen.add(value)
