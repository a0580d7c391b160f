"""A shop's program on the generated client: it places an order, reads, follows and cancels it, and prints what it saw."""

import json
import sys
from uuid import UUID

from twelve import Client
from twelve.api.orders import cancel_order, get_order, place_order
from twelve.models import Accepted, DeliverTo, Order, OrderedLine, PaymentMeans, PlacedBy, PlaceOrder, Reason

client = Client(base_url=sys.argv[1])
placed = place_order.sync(
    client=client,
    idempotency_key="a-program-in-python",
    body=PlaceOrder(
        flow="marketplace",
        customer=PlacedBy(id="python", name="홍길동"),
        lines=[OrderedLine(item_id="2001", name="gram", quantity=1, unit_price=5_000_000_000)],
        currency="KRW",
        address=DeliverTo(line="England", region="london"),
        payment=PaymentMeans(method="card", token="tok_ok"),
    ),
)
assert isinstance(placed, Accepted), placed
order_id: UUID = placed.order_id
read = get_order.sync(order_id, client=client, after=placed.position, wait=10_000)
assert isinstance(read, Order), read


def snapshot() -> Order:
    with client.get_httpx_client().stream("GET", f"/orders/{order_id}/live") as following:
        for line in following.iter_lines():
            if line.startswith("data:"):
                return Order.from_dict(json.loads(line.removeprefix("data:")))
    raise SystemExit("the stream ended")


followed = snapshot()
canceled = cancel_order.sync(order_id, client=client, prefer="wait=20", body=Reason(reason="changed my mind"))
assert isinstance(canceled, Accepted), canceled
saw = {
    "order_id": str(order_id),
    "amount": read.total.amount,
    "followed": str(followed.order_id),
    "payment": read.payment.status.value,
    "status": canceled.status.value,
}
print(json.dumps(saw))
