"""The ordinary user that services run as when we are root, and folders that user can reach."""

from __future__ import annotations

import os
import pwd
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

_CANDIDATES = ("postgres", "nobody")
_ROOT_BASES = (Path("/var/lib/tokenworks"), Path("/var/tmp/tokenworks"))  # noqa: S108  (checked by _trusted)


@dataclass(frozen=True)
class ServiceAccount:
    """An unprivileged user of this machine."""

    name: str
    uid: int
    gid: int


def service_account(home: Path | None = None) -> ServiceAccount | None:
    """Whom services run as: None (ourselves) unless we are root; then the owner of ``home`` if there is one.

    Raises RuntimeError when we are root and the machine has no ordinary account.
    """
    if os.geteuid() != 0:
        return None
    ordinary = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    by_name = {entry.pw_name: entry for entry in ordinary}
    entry = next((by_name[name] for name in _CANDIDATES if name in by_name), None)
    if home is not None and home.exists():  # data of a run that was not root's stays its owner's
        entry = next((each for each in ordinary if each.pw_uid == home.stat().st_uid), entry)
    if entry is None:
        entry = next(iter(sorted(by_name.values(), key=lambda each: each.pw_uid)), None)
    if entry is None:
        raise RuntimeError("PostgreSQL refuses to run as root and this machine has no other user account")
    return ServiceAccount(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def can_reach(account: ServiceAccount | None, folder: Path) -> bool:
    """Whether ``account`` may pass through every folder above and including ``folder``."""
    if account is None:
        return True
    resolved = folder.resolve()
    return all(_may_pass(account, each) for each in (resolved, *resolved.parents))


def _may_pass(account: ServiceAccount, folder: Path) -> bool:
    try:
        info = folder.stat()
    except FileNotFoundError:
        return True  # made later, by us
    if info.st_uid == account.uid:
        return bool(info.st_mode & stat.S_IXUSR)
    if info.st_gid == account.gid:
        return bool(info.st_mode & stat.S_IXGRP)
    return bool(info.st_mode & stat.S_IXOTH)


def root_base() -> Path:
    """A folder only root can write to and everybody can pass through, for what services must reach."""
    for base in _ROOT_BASES:
        try:
            base.mkdir(mode=0o755, exist_ok=True)
        except OSError:
            continue
        if _trusted(base):
            return base
    raise RuntimeError(f"none of {', '.join(map(str, _ROOT_BASES))} can be used to place service files")


def _trusted(folder: Path) -> bool:
    info = folder.lstat()
    return (
        stat.S_ISDIR(info.st_mode) and info.st_uid == 0 and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def service_home(folder: Path, account: ServiceAccount | None) -> Path:
    """Make ``folder`` (mode 0700, owned by ``account``) and return the path the service must use.

    When ``account`` cannot pass through the folders above, the files lie under ``root_base`` and
    ``folder`` is a link to them.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink() and not folder.exists():
        folder.unlink()  # what it pointed to was removed
    if not folder.exists():
        if can_reach(account, folder.parent):
            folder.mkdir()
        else:
            elsewhere = root_base() / f"{folder.name}-{secrets.token_hex(8)}"
            elsewhere.mkdir()
            folder.symlink_to(elsewhere)
    home = folder.resolve()
    if account is None:
        home.chmod(0o700)
        return home
    if not can_reach(account, home.parent):
        raise RuntimeError(f"{folder} was made where user {account.name!r} cannot reach it: remove it")
    if home.stat().st_uid != account.uid:
        os.chown(home, account.uid, account.gid)
    home.chmod(0o700)
    return home
