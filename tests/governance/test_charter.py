"""The charter is read strictly: whatever is wrong is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import DatabaseError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.clock import clock
from governance.charter import (
    CharterError,
    charter_convert,
    charter_digest,
    charter_load,
    charter_parse,
    charter_to_dict,
)
from governance.models import Charter
from governance.selectors import charter_in_force
from governance.services import charter_adopt
from routing.snapshot import Policy
from tenants.scope import system_scope

REFERENCE = settings.BASE_DIR / "charters/deepseek.yaml"
TEXT = REFERENCE.read_text(encoding="utf-8")


def test_the_reference_charter_is_the_consortium_of_the_product() -> None:
    charter = charter_load(REFERENCE)
    prices = {
        partner.slug: [offer.nano_per_mtok() for offer in partner.offers] for partner in charter.partners
    }
    assert prices == {
        "huawei": [(100_000_000,) * 3],
        "tencent": [(120_000_000,) * 3],
        "alibaba": [(140_000_000,) * 3],
    }
    assert (charter.consortium, charter.levy_ppm) == ("DeepSeek", 50_000)
    assert [len(partner.pools) for partner in charter.partners] == [1, 1, 1]


def test_the_policy_has_the_fields_that_routing_reads() -> None:
    policy = charter_to_dict(charter_load(REFERENCE))["policy"]
    assert set(policy) == set(Policy.__struct_fields__)
    Policy(**policy)


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("levy_ppm: 50000", "levy_ppm: 1000001", "$.levy_ppm"),
        ("levy_ppm: 50000", "levy_pmm: 50000", "levy_pmm"),
        ("levy_ppm: 50000", 'levy_ppm: "50000"', "$.levy_ppm"),
        ("levy_ppm: 50000", "levy_ppm: 50000\nlevy_ppm: 0", "'levy_ppm' appears twice"),
        ("version: 1", "version: 2", "$.version"),
        ('input: "0.10"', "input: 0.10", "quote amounts"),
        ('input: "0.10"', 'input: "-0.10"', "$.partners[0].offers[0].input"),
        ('input: "0.10"', 'input: "0.1000000001"', "input"),
        ('input: "0.10"', 'input: "1e3"', "input"),
        ("jurisdiction: CN", "jurisdiction: China", "$.partners[0].jurisdiction"),
        ("slug: tencent\n", "slug: huawei\n", "'huawei' appears twice"),
        ("slug: tencent-shanghai-h20", "slug: huawei-guizhou-910c", "'huawei-guizhou-910c' appears twice"),
        ("slug: tencent\n", "slug: Ten cent\n", "slug"),
        ("  price_weight: 1\n", "", "price_weight"),
        ("consortium: DeepSeek", "consortium: !!python/object:os.system DeepSeek", "constructor"),
        ("consortium: DeepSeek", "consortium: [", "charter"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, names: str) -> None:
    assert old in TEXT
    with pytest.raises(CharterError) as caught:
        charter_parse(TEXT.replace(old, new, 1))
    assert names in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "just text", "partners: []"])
def test_what_is_no_charter_is_refused(text: str) -> None:
    with pytest.raises(CharterError):
        charter_parse(text)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        charter_load(tmp_path / "none.yaml")


def test_the_digest_is_of_the_rules_not_of_their_layout() -> None:
    plain = charter_parse(TEXT)
    commented = charter_parse("# a remark\n" + TEXT.replace("levy_ppm: 50000", "levy_ppm:    50000"))
    changed = charter_parse(TEXT.replace("levy_ppm: 50000", "levy_ppm: 50001"))
    assert charter_digest(plain) == charter_digest(commented) != charter_digest(changed)


@hypothesis_settings(max_examples=50, deadline=None, derandomize=True)
@given(levy_ppm=st.integers(0, 1_000_000), whole=st.integers(0, 999_999), nano=st.integers(0, 999_999_999))
def test_any_charter_survives_being_stored(levy_ppm: int, whole: int, nano: int) -> None:
    text = TEXT.replace("levy_ppm: 50000", f"levy_ppm: {levy_ppm}").replace("0.10", f"{whole}.{nano:09d}")
    charter = charter_parse(text)
    assert charter_convert(dict(charter_to_dict(charter))) == charter
    assert charter.partners[0].offers[0].nano_per_mtok() == (whole * 10**9 + nano,) * 3


@pytest.mark.django_db(transaction=True)
def test_adopting_puts_a_charter_in_force_once() -> None:
    first = charter_parse(TEXT)
    second = charter_parse(TEXT.replace("levy_ppm: 50000", "levy_ppm: 40000"))
    with system_scope(), clock.frozen(datetime(2026, 1, 2, tzinfo=UTC)) as frozen:
        assert charter_in_force() is None
        row = charter_adopt(document=first)
        assert charter_adopt(document=first).id == row.id
        frozen.advance(timedelta(days=1))
        charter_adopt(document=second)
        in_force = charter_in_force()
        assert in_force is not None
        assert (in_force.document, in_force.digest) == (second, charter_digest(second))
        frozen.advance(timedelta(days=1))
        charter_adopt(document=first)  # going back is a new adoption
        assert Charter.objects.count() == 3
        in_force = charter_in_force()
        assert in_force is not None
        assert in_force.document == first


@pytest.mark.django_db(transaction=True)
def test_an_adopted_charter_is_never_edited() -> None:
    with system_scope():
        charter_adopt(document=charter_parse(TEXT))
    with pytest.raises(DatabaseError, match="permission denied"), system_scope():
        Charter.objects.update(document={})
