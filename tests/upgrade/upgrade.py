"""Upgrades with orders under way, by the programs themselves.

record OLD NAME   a program's log and views, with orders under way, into tests/upgrade/NAME.{tar.gz,json}, which a
                  test opens with today's programs for ever after
both OLD NEW      orders under OLD, carried on by NEW, and those of NEW carried on by OLD again
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
LIMIT_S = 60
URL = "http://127.0.0.1:8080"


def until(what, holds):
    """Waits for a fact."""
    began = time.monotonic()
    while not (found := holds()):
        if time.monotonic() - began > LIMIT_S:
            sys.exit(f"not in time: {what}")
        time.sleep(0.05)
    return found


class Platform:
    def __init__(self, program, data):
        self.program, self.data = program, data
        environment = {**os.environ, "TWELVE_TOOLS": str(HERE.parent.parent / ".tools")}
        arguments = [program, "--log", "warn", "up", "--data", str(data)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env=environment)
        until(f"{program} is up", lambda: self.process.poll() is None and self.get("/readyz"))

    def get(self, path):
        try:
            with urllib.request.urlopen(URL + path, timeout=10) as answer:
                return json.load(answer) if "json" in answer.headers.get("content-type", "") else answer.read()
        except OSError:
            return None

    def post(self, path, body=None, key=None):
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
        request = urllib.request.Request(URL + path, json.dumps(body or {}).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            sys.exit(f"POST {path}: {error.code} {error.read().decode()}")

    def until(self, order, status):
        return until(f"{order} is {status}", lambda: (row := self.get(f"/orders/{order}")) and row["status"] == status and row)

    def verify(self):
        for command in (["views", "verify", "--data", str(self.data)], ["doctor"]):
            subprocess.run([self.program, "--log", "warn", *command], check=True, stdout=subprocess.DEVNULL)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        if self.process.wait(LIMIT_S) != 0:
            sys.exit(f"{self.program} ended with {self.process.returncode}")


def body(flow, **more):
    common = {
        "flow": flow,
        "channel": "web",
        "customer": {"id": "before", "name": "홍길동", "phone": "010-0000-0000", "email": "before@example.org"},
        "lines": [{"item_id": "2001", "name": "gram", "quantity": 1, "unit_price": 9000}],
        "currency": "KRW",
        "address": {"line": "England", "region": "london"},
    }
    paid = {} if flow in ("appliance", "rental") else {"payment": {"method": "card", "token": "tok_ok"}}
    return {**common, **paid, **more}


ORDERS = {
    "leaving": body("marketplace"),
    "canceled": body("marketplace"),
    "delivered": body("marketplace"),
    "unpaid": body("appliance", store_id="s"),
    "waiting": body("food", store_id="s", delivery_type="walk"),
    "cooking": body("kitchen", store_id="s"),
    "rented": body("rental"),
}


def place_all(platform, prefix=""):
    """Orders of every flow, each where it waits for somebody."""
    answers = {name: platform.post("/orders", order, prefix + name) for name, order in ORDERS.items()}
    ids = {name: answer["order_id"] for name, answer in answers.items()}
    for name in ("leaving", "canceled", "delivered"):
        platform.until(ids[name], "out_for_delivery")
    platform.post(f"/orders/{ids['canceled']}/cancel")
    platform.post(f"/orders/{ids['delivered']}/delivery/complete")
    for name in ("canceled", "delivered"):
        platform.until(ids[name], name)
    at_store = lambda name: (platform.get(f"/orders/{ids[name]}") or {}).get("store")
    until("the store has both", lambda: at_store("waiting") and at_store("cooking"))
    platform.post(f"/orders/{ids['cooking']}/store/accept")
    platform.post(f"/orders/{ids['cooking']}/store/start")
    platform.until(ids["cooking"], "preparing")
    until("its delivery is asked for", lambda: platform.get(f"/orders/{ids['rented']}")["delivery"])
    told = {"waiting": 1, "cooking": 3, "rented": 1}
    for name, count in told.items():
        types = lambda: [event["type"] for event in platform.get(f"/orders/{ids[name]}")["timeline"]]
        until(f"{name} is told of", lambda: types().count("NotificationSent") >= count)
    return answers


def carry_on(platform, answers, prefix=""):
    """Each order goes on where it was, and each key gets its first answer."""
    for name, answer in answers.items():
        again = platform.post("/orders", ORDERS[name], prefix + name)
        if again != answer:
            sys.exit(f"{name}: {again}, and at first {answer}")
    ids = {name: answer["order_id"] for name, answer in answers.items()}
    platform.post(f"/orders/{ids['leaving']}/delivery/complete")
    platform.until(ids["leaving"], "delivered")
    platform.post(f"/orders/{ids['unpaid']}/payment", {"method": "card", "token": "tok_ok"})
    platform.until(ids["unpaid"], "paid")
    platform.post(f"/orders/{ids['waiting']}/store/accept")
    platform.post(f"/orders/{ids['cooking']}/store/finish")
    platform.until(ids["cooking"], "prepared")
    platform.post(f"/orders/{ids['rented']}/delivery/start")
    platform.until(ids["rented"], "out_for_delivery")
    platform.verify()


def record(program, name):
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder) / "data"
        platform = Platform(program, data)
        answers = place_all(platform)
        rows = {name: platform.get(f"/orders/{answer['order_id']}") for name, answer in answers.items()}
        platform.stop()
        orders = [
            {"key": name, "body": json.dumps(ORDERS[name]), "answer": answer, "status": rows[name]["status"],
             "events": [event["type"] for event in rows[name]["timeline"]]}
            for name, answer in answers.items()
        ]
        (HERE / f"{name}.json").write_text(json.dumps(orders, ensure_ascii=False, indent=1) + "\n")
        skip = lambda entry: None if entry.name.endswith(".log") or "/ports" in entry.name else entry
        with tarfile.open(HERE / f"{name}.tar.gz", "w:gz") as archive:
            for part in ("nats", "views"):
                archive.add(data / part, part, filter=skip)


def both(old, new):
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder) / "data"
        platform = Platform(old, data)
        first = place_all(platform, "old-")
        platform.stop()
        platform = Platform(new, data)
        carry_on(platform, first, "old-")
        second = place_all(platform, "new-")
        platform.stop()
        platform = Platform(old, data)
        carry_on(platform, second, "new-")
        platform.stop()
    print("there and back: every order went on, every key got its first answer")


if __name__ == "__main__":
    {"record": record, "both": both}[sys.argv[1]](*sys.argv[2:])
