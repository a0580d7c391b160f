// The console: what operators and the curious look at. It reads what anybody with the same token may read by REST, and
// gives two commands: cancel an order, let a parked one go on. No library, no build.

const POLL_MS = 2000;
const RETRY_MS = 1000;
const ENDED = new Set(["completed", "delivered", "returned"]);
const UNDONE = new Set(["cancel_requested", "canceled", "return_requested", "return_in_transit"]);
const BAD = new Set(["rejected", "expired", "parked"]);

const page = document.querySelector("#page");
const said = document.querySelector("#said");
let leaving = new AbortController();

/** An element; text children are text, never markup. */
function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined).map((child) => child instanceof Node ? child : String(child)));
  return element;
}

function say(text, isBad = false) {
  said.textContent = text;
  said.classList.toggle("bad", isBad);
}

const token = () => sessionStorage.getItem("token");
const headers = (more) => ({ ...(token() ? { Authorization: `Bearer ${token()}` } : {}), ...more });

class Refused extends Error {}

async function answered(response) {
  if (response.ok || response.status === 304) return response;
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) document.querySelector("#prove input").focus();
  throw new Refused(`${problem.detail ?? response.statusText} (${problem.code ?? response.status})`);
}

async function get(path, signal) {
  return (await answered(await fetch(path, { headers: headers(), signal }))).json();
}

async function command(path, what, body = {}) {
  try {
    const key = crypto.randomUUID?.() ?? String(Math.random());
    const sent = { method: "POST", headers: headers({ "Content-Type": "application/json", "Idempotency-Key": key }), body: JSON.stringify(body) };
    const done = await (await answered(await fetch(path, sent))).json();
    say(`${what}: the order is ${done.status}`);
  } catch (error) {
    say(`${what}: ${error.message}`, true);
  }
}

/** Server-Sent Events, by fetch, because a token cannot be given to an EventSource. Resumes where it was cut off. */
async function follow(path, signal, heard) {
  let last = null;
  while (!signal.aborted) {
    try {
      const response = await answered(await fetch(path, { headers: headers(last ? { "Last-Event-ID": last } : {}), signal }));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value.replaceAll("\r\n", "\n");
        for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
          const lines = text.slice(0, end).split("\n");
          text = text.slice(end + 2);
          const field = (name) => lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trimStart()).join("\n");
          last = field("id") || last;
          if (field("data")) heard(field("event"), JSON.parse(field("data")));
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused) return say(error.message, true);
    }
    await pause(RETRY_MS, signal);
  }
}

const pause = (ms, signal) => new Promise((done) => {
  const timer = setTimeout(done, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
});

/** Asks again and again while the page is looked at: one path, or several at a time. */
async function poll(path, signal, heard) {
  const ask = () => Array.isArray(path) ? Promise.all(path.map((one) => get(one, signal))) : get(path, signal);
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        heard(await ask());
      } catch (error) {
        if (signal.aborted) return;
        say(error.message, true);
        if (error instanceof Refused) return;
      }
    }
    await pause(POLL_MS, signal);
  }
}

const money = (amount) => amount ? new Intl.NumberFormat(undefined, { style: "currency", currency: amount.currency }).format(amount.amount / 10 ** new Intl.NumberFormat("en", { style: "currency", currency: amount.currency }).resolvedOptions().maximumFractionDigits) : "";
const when = (time) => time ? new Date(time).toLocaleString() : "";
const badge = (status) => h("span", { class: `status ${ENDED.has(status) ? "end" : UNDONE.has(status) ? "undone" : BAD.has(status) ? "bad" : ""}` }, status.replaceAll("_", " "));
const link = (id) => h("a", { href: `#/orders/${id}` }, h("code", {}, id));

function table(columns, rows, empty) {
  if (rows.length === 0) return h("p", {}, empty);
  const isNumber = (name) => ["Quantity", "Each", "Total", "Rows"].includes(name);
  return h("table", {}, h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col", class: isNumber(name) && "number" }, name)))), h("tbody", {}, rows));
}

async function orders(query, signal) {
  const filters = new URLSearchParams(query);
  const flows = (await get("/flows", signal)).items;
  const choose = (name, values) => h("select", { "aria-label": name, onchange: (event) => { event.target.value ? filters.set(name, event.target.value) : filters.delete(name); location.hash = `#/orders?${filters}`; } },
    h("option", { value: "" }, `any ${name}`), values.map((value) => h("option", { value, selected: filters.get(name) === value }, value.replaceAll("_", " "))));
  const statuses = ["placed", "paid", "accepted", "preparing", "prepared", "out_for_delivery", "delivered", "completed", "cancel_requested", "canceled", "rejected", "expired", "return_requested", "returned"];
  const list = h("div", {});
  page.replaceChildren(h("h1", {}, "Orders"), h("div", { class: "filters" }, choose("flow", flows.map((flow) => flow.name)), choose("status", statuses)), list);
  await poll(`/orders?limit=50&${filters}`, signal, ({ items }) => {
    const row = (order) => h("tr", {}, h("td", {}, link(order.order_id)), h("td", {}, badge(order.status)), h("td", {}, order.flow), h("td", { class: "wide" }, order.customer?.name ?? ""), h("td", { class: "number" }, money(order.total)), h("td", { class: "wide" }, when(order.placed_at)));
    list.replaceChildren(table(["Order", "Status", "Flow", "Customer", "Total", "Placed"], items.map(row), "No orders."));
    say(`${items.length} orders, newest first`);
  });
}

function timeline(entries) {
  const first = entries.length ? Date.parse(entries[0].time) : 0;
  const entry = ({ type, context, time, position, data, status }) => h("li", {},
    h("strong", {}, type), " ", h("span", { class: "when" }, `${context}, ${when(time)} (+${((Date.parse(time) - first) / 1000).toFixed(2)} s), at ${position}: ${status.replaceAll("_", " ")}`),
    Object.keys(data).length ? h("details", {}, h("summary", {}, "data"), h("pre", {}, JSON.stringify(data, null, 2))) : null);
  return h("ol", { class: "timeline" }, entries.map(entry));
}

async function order(id, signal) {
  page.replaceChildren(h("h1", {}, "Order ", h("code", {}, id)));
  const show = (row) => {
    const facts = { Flow: `${row.flow} (${row.flow_version})`, Channel: row.channel, Customer: row.customer && `${row.customer.name} (${row.customer.id})`, Total: money(row.total), Payment: row.payment?.status, Store: row.store_id && `${row.store_id}: ${row.store?.status}`, Coupon: row.coupon?.status, Delivery: row.delivery?.status, Rider: row.delivery?.rider_id, Placed: when(row.placed_at) };
    page.replaceChildren(
      h("h1", {}, "Order ", h("code", {}, id), " ", badge(row.status)),
      h("div", { class: "acts" }, h("button", { onclick: () => command(`/orders/${id}/cancel`, "Cancel", { reason: "canceled in the console" }) }, "Cancel the order")),
      h("dl", { class: "facts" }, Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      h("h2", {}, "What was ordered"),
      table(["Item", "Quantity", "Each"], (row.lines ?? []).map((line) => h("tr", {}, h("td", {}, line.name, line.options?.length ? ` (${line.options.join(", ")})` : ""), h("td", { class: "number" }, line.quantity), h("td", { class: "number" }, money({ amount: line.unit_price, currency: row.total.currency })))), "Nothing."),
      h("h2", {}, "What happened"), timeline(row.timeline));
    say(`as of ${row.position}, followed live`);
  };
  // One look at a time, so that an older answer never covers a newer one.
  let looking = false;
  let isOutdated = false;
  const look = async () => {
    isOutdated = true;
    if (looking) return;
    looking = true;
    while (isOutdated && !signal.aborted) {
      isOutdated = false;
      await get(`/orders/${id}`, signal).then(show, (error) => signal.aborted || say(error.message, true));
    }
    looking = false;
  };
  await follow(`/orders/${id}/live`, signal, (event, data) => event === "snapshot" ? show(data) : look());
}

async function sagas(signal) {
  const list = h("div", {});
  page.replaceChildren(h("h1", {}, "Sagas that wait"), list);
  const row = ({ order_id, status, waiting_for, due, parked }) => h("tr", {},
    h("td", {}, link(order_id)), h("td", {}, badge(parked ? "parked" : status)), h("td", {}, waiting_for ?? ""),
    h("td", { class: "wide" }, parked ? `${parked.step ?? ""} ${parked.detail ?? parked.code ?? ""}` : due ? `not before ${when(due)}` : ""),
    h("td", {}, parked ? h("button", { onclick: () => command(`/sagas/${order_id}/resume`, "Resume") }, "Resume") : ""));
  // A parked order waits for an operator and for no step, so it is in a list of its own.
  const paths = ["/sagas?parked=true&limit=100", "/sagas?waiting=true&parked=false&limit=100"];
  await poll(paths, signal, ([parked, waiting]) => {
    const items = [...parked.items, ...waiting.items];
    list.replaceChildren(table(["Order", "Status", "Step", "Why", ""], items.map(row), "No order waits for anything."));
    say(`${waiting.items.length} orders wait, ${parked.items.length} are parked`);
  });
}

async function views(signal) {
  const list = h("div", {});
  page.replaceChildren(h("h1", {}, "Views"), list);
  const row = ({ name, rows }) => h("tr", {}, h("td", {}, name), h("td", { class: "number" }, rows));
  await poll("/views", signal, ({ items }) => {
    const { generation, partitions, caught_up, stopped, store_bytes } = items[0];
    const behind = partitions.reduce((sum, partition) => sum + (partition.lag_events ?? 0), 0);
    list.replaceChildren(
      h("dl", { class: "facts" }, Object.entries({ Generation: generation, Positions: partitions.map(({ position }) => position).join(", "), "Events behind": behind, "Caught up": caught_up ? "yes" : "not yet", Stopped: stopped ?? "no", Bytes: store_bytes }).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      h("h2", {}, "Rows"), table(["View", "Rows"], items.map(row), "No views."));
    say(stopped ? "the views stand still" : "as they grow", Boolean(stopped));
  });
}

async function flows(signal) {
  const { items } = await get("/flows", signal);
  page.replaceChildren(h("h1", {}, "Flows"), ...items.flatMap(({ name, version, flow, diagram }) => [
    h("h2", {}, `${name} (${version})`), h("p", {}, flow.title),
    h("details", {}, h("summary", {}, "as declared"), h("pre", {}, JSON.stringify(flow, null, 2))),
    h("details", {}, h("summary", {}, "every way it can go (Mermaid)"), h("pre", {}, diagram))]));
  say(`${items.length} flows`);
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [path, query] = (location.hash || "#/orders").slice(2).split("?");
  const [part, id] = path.split("/");
  for (const anchor of document.querySelectorAll("nav a")) {
    anchor.getAttribute("href") === `#/${part}` ? anchor.setAttribute("aria-current", "page") : anchor.removeAttribute("aria-current");
  }
  say("");
  try {
    if (part === "orders" && id) await order(decodeURIComponent(id), signal);
    else if (part === "sagas") await sagas(signal);
    else if (part === "views") await views(signal);
    else if (part === "flows") await flows(signal);
    else await orders(query, signal);
  } catch (error) {
    if (!signal.aborted) say(error.message, true);
  }
}

document.querySelector("#find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = new FormData(event.target).get("id").trim();
  if (id) location.hash = `#/orders/${encodeURIComponent(id)}`;
});
document.querySelector("#prove").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", new FormData(event.target).get("token").trim());
  event.target.reset();
  show();
});
addEventListener("hashchange", () => { show(); page.focus(); });
show();
