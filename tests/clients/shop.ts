// A shop's program on the generated types: it places an order, reads, follows and cancels it, and prints what it saw.
import createClient from "openapi-fetch";
import type { components, paths } from "./twelve.js";

declare const process: { argv: string[]; exit(code: number): never };

const url = process.argv[2]!;
const client = createClient<paths>({ baseUrl: url });

function fail(said: components["schemas"]["Problem"] | undefined): never {
  const code: components["schemas"]["ProblemCode"] | undefined = said?.code;
  console.error(code, said?.detail);
  return process.exit(1);
}

async function snapshot(order_id: string): Promise<components["schemas"]["Order"]> {
  const following = await client.GET("/orders/{order_id}/live", {
    params: { path: { order_id } },
    parseAs: "stream",
  });
  const reader = following.data!.getReader() as ReadableStreamDefaultReader<Uint8Array>;
  const decoder = new TextDecoder();
  for (let text = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the stream ended");
    text += decoder.decode(value, { stream: true });
    const data = /^event: ?snapshot\n(?:.*\n)*?data: ?(.*)\n/m.exec(text) ?? /^data: ?(.*)\n\n/m.exec(text);
    if (data) {
      await reader.cancel();
      return JSON.parse(data[1]!) as components["schemas"]["Order"];
    }
  }
}

const placed = await client.POST("/orders", {
  params: { header: { "Idempotency-Key": "a-program-in-typescript" } },
  body: {
    flow: "marketplace",
    customer: { id: "typescript", name: "홍길동" },
    lines: [{ item_id: "2001", name: "gram", quantity: 1, unit_price: 5_000_000_000 }],
    currency: "KRW",
    address: { line: "England", region: "london" },
    payment: { method: "card", token: "tok_ok" },
  },
});
if (!placed.data) fail(placed.error);
const { order_id, position } = placed.data;
const read = await client.GET("/orders/{order_id}", {
  params: { path: { order_id }, query: { after: position, wait: 10_000 } },
});
if (!read.data) fail(read.error);
const followed = await snapshot(order_id);
const canceled = await client.POST("/orders/{order_id}/cancel", {
  params: { path: { order_id }, header: { Prefer: "wait=20" } },
  body: { reason: "changed my mind" },
});
if (!canceled.data) fail(canceled.error);
const status: components["schemas"]["Status"] = canceled.data.status;
const amount: number | undefined = read.data.total?.amount;
console.log(JSON.stringify({ order_id, amount, followed: followed.order_id, payment: read.data.payment.status, status }));
