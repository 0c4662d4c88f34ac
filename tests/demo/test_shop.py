"""The demo's shop: real tools on a real database."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from guardrails_mw import Guard
from guardrails_mw.demo.shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop.db")


def test_tools_read_and_write_the_database(shop: Shop, tmp_path: Path) -> None:
    """A refund and a mail are rows afterwards; what an order does not cover is not paid."""
    tools = {tool.name: tool for tool in shop.tools}
    assert "refunded 10.00" in tools["refund"].invoke({"order_id": "1002", "amount": 10.0, "reason": "x"})
    assert "does not cover" in tools["refund"].invoke({"order_id": "1002", "amount": 99.0, "reason": "x"})
    assert tools["send_email"].invoke({"to": "C-1001", "subject": "s", "body": "b"}) == "sent to C-1001"
    with closing(sqlite3.connect(tmp_path / "shop.db")) as db:
        assert db.execute("select order_id, amount from refunds").fetchall() == [("1002", 10.0)]
        assert db.execute("select address from outbox").fetchall() == [("amy.lin@example.com",)]
    assert shop.ran == ["refund", "refund", "send_email"]


def test_the_secret_is_new_every_time_and_in_one_order(shop: Shop, tmp_path: Path) -> None:
    """The leaked key is made when the shop is, and stands in the note of order 1006."""
    assert shop.secret in json.loads(shop.get_order("1006"))["note"]
    assert Shop(tmp_path / "other.db").secret != shop.secret


def test_the_policy_fits_the_tools(shop: Shop, tmp_path: Path) -> None:
    """The shipped policy loads without any environment variable, and names only tools and arguments that exist."""
    configs = Path(__file__).parents[2] / "configs"
    store = {"GUARDRAILS_STORE": f"sqlite:///{tmp_path}/g.db"}
    with Guard.from_yaml(configs / "support-agent.yaml", tools=shop.tools, env=store) as guard:
        assert set(guard.policy.tools) < {tool.name for tool in shop.tools}
