"""Publishes to the data plane what it must know: snapshot, API keys, balances. PostgreSQL in, Redis out.

Everything here may be repeated at any time. Writers call it after their transaction has committed; ``watch``
finds and repairs what a crash in between left unpublished.
"""

from directory.accounts import publish_account
from directory.everything import publish_all
from directory.keys import publish_key, unpublish_key
from directory.snapshots import publish_snapshot

__all__ = ["publish_account", "publish_all", "publish_key", "publish_snapshot", "unpublish_key"]
