"""A clean clone of the repository, and a new account whose commands are typed in it."""

import json
import sys

import pytest

from tests.support.cli_process import ROOT
from tests.support.fake_batch import FakeBatch, running_batch
from tests.support.fake_google_project import running_project
from tests.support.fresh_account import FreshAccount, make_clone


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A clean clone with the environment of these tests."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git, whose files make a clone")
    return make_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture
def account(clone, emulator, tmp_path, monkeypatch):
    """A new account with an empty home, whose machines pretend to train."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    pretend = {**emulator.env, "PRETEND": json.dumps([["finish"]])}
    trainer = [sys.executable, "-m", "tests.support.fake_trainer"]
    with running_project() as project, running_batch(FakeBatch(tmp_path, trainer, pretend)) as batch:
        yield FreshAccount(clone, emulator.make_bucket(), project, batch)
