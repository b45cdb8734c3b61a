"""Partners, pools, dated offers, and workers that leave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError

from core.clock import clock
from core.errors import ApiError
from ledger.models import Account
from partners.models import Offer, Partner, Worker, WorkerState
from partners.selectors import offer_in_force, offers_in_force, partner_list, pool_list, worker_list
from partners.services import Prices, offer_ensure, partner_ensure, pool_ensure, worker_state_set
from tenants.scope import system_scope

pytestmark = pytest.mark.django_db(transaction=True)

CHEAP, DEAR = Prices(100, 50, 200), Prices(110, 55, 220)


@pytest.fixture
def partner() -> Partner:
    """A member cloud."""
    with system_scope():
        return partner_ensure(slug="cloud", name="Cloud", jurisdiction="CN")


def test_a_partner_is_made_once_with_its_account_and_kept_up_to_date(partner: Partner) -> None:
    with system_scope():
        again = partner_ensure(slug="cloud", name="Cloud Two", jurisdiction="SG")
        assert again.id == partner.id
        assert [(row.name, row.jurisdiction) for row in partner_list()] == [("Cloud Two", "SG")]
        assert Account.objects.get(kind="partner").owner_id == partner.id


def test_a_pool_is_made_once_and_kept_up_to_date(partner: Partner) -> None:
    with system_scope():
        pool = pool_ensure(partner=partner, slug="p", region="r", accelerator="a")
        again = pool_ensure(partner=partner, slug="p", region="r2", accelerator="a2")
        assert again.id == pool.id
        assert [(row.region, row.accelerator) for row in pool_list()] == [("r2", "a2")]


def test_offers_are_dated_and_the_newest_that_has_come_counts(partner: Partner) -> None:
    with system_scope(), clock.frozen(datetime(2026, 1, 2, tzinfo=UTC)) as frozen:
        assert offer_in_force(partner_id=partner.id, release_slug="nano") is None
        first = offer_ensure(partner=partner, release_slug="nano", prices=CHEAP)
        assert offer_ensure(partner=partner, release_slug="nano", prices=CHEAP).id == first.id
        offer_ensure(partner=partner, release_slug="other", prices=DEAR)
        Offer.objects.create(
            partner=partner,
            release_slug="nano",
            input_nano_per_mtok=1,
            cached_input_nano_per_mtok=1,
            output_nano_per_mtok=1,
            effective_at=clock.now() + timedelta(days=9),
        )
        frozen.advance(timedelta(days=1))
        second = offer_ensure(partner=partner, release_slug="nano", prices=DEAR)
        in_force = offer_in_force(partner_id=partner.id, release_slug="nano")
        assert in_force is not None
        assert in_force.id == second.id != first.id
        assert {(offer.release_slug, offer.input_nano_per_mtok) for offer in offers_in_force()} == {
            ("nano", 110),
            ("other", 110),
        }
        frozen.advance(timedelta(days=8))
        assert {offer.input_nano_per_mtok for offer in offers_in_force()} == {1, 110}


def test_a_price_once_offered_is_never_edited(partner: Partner) -> None:
    with system_scope():
        offer_ensure(partner=partner, release_slug="nano", prices=CHEAP)
    with pytest.raises(DatabaseError, match="permission denied"), system_scope():
        Offer.objects.update(input_nano_per_mtok=1)
    with pytest.raises(DatabaseError, match="offer_price_not_negative"), system_scope():
        offer_ensure(partner=partner, release_slug="nano", prices=Prices(-1, 0, 0))


def test_workers_drain_and_retire(partner: Partner) -> None:
    with system_scope():
        pool = pool_ensure(partner=partner, slug="p", region="r", accelerator="a")
        worker = Worker.objects.create(
            pool=pool,
            name="w",
            endpoint="http://h:1",
            public_key="k",
            release_digest="d",
            release_slug="nano",
            capacity={},
            max_running=1,
        )
        worker_state_set(worker_id=worker.id, state=WorkerState.RETIRED)
        assert worker_list(states=[WorkerState.ACTIVE]) == []
        assert [row.state for row in worker_list()] == ["retired"]
        with pytest.raises(ApiError, match="no worker"):
            worker_state_set(worker_id="wrk_none", state=WorkerState.ACTIVE)
