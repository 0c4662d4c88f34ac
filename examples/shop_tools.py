"""The two tools that the examples guard."""

from __future__ import annotations

from langchain_core.tools import tool


@tool
def find_order(order_id: str) -> str:
    """Look up an order."""
    return f"order {order_id}: espresso machine, 249.00, delivered to amy.lin@example.com"


@tool
def refund(order_id: str, amount: float) -> str:
    """Pay money back."""
    return f"refunded {amount:.2f} for order {order_id}"


TOOLS = [find_order, refund]
