"""The folder of sockets, locks and secrets: nobody else's, and no link to anywhere."""

import os
import stat

import pytest

from envs.runtime import runtime_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"calql-{os.getuid()}"


def test_it_is_made_for_this_user_alone_and_found_again(temporary):
    before = os.umask(0)
    try:
        assert runtime_folder() == temporary == runtime_folder()
    finally:
        os.umask(before)
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


def test_a_link_is_refused(temporary, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    temporary.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="TMPDIR"):
        runtime_folder()


def test_a_file_is_refused(temporary):
    temporary.write_text("")
    with pytest.raises(PermissionError, match=str(temporary)):
        runtime_folder()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_one_that_others_may_enter_is_refused(temporary, mode):
    temporary.mkdir()
    temporary.chmod(mode)
    with pytest.raises(PermissionError, match=str(temporary)):
        runtime_folder()


def test_another_users_is_refused(temporary, monkeypatch):
    temporary.mkdir(mode=0o700)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    temporary.rename(temporary.with_name(f"calql-{uid + 1}"))
    with pytest.raises(PermissionError, match="not a folder of this user alone"):
        runtime_folder()
