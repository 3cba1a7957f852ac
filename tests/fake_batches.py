"""A stand-in for the batch interface of an endpoint, on loopback, that errs as real ones do.

It takes files and batches, works as :class:`FakeLLM` answers, and counts how often each request
was executed. What it holds outlives its clients, which tests kill.
"""

import asyncio
import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from email import message_from_bytes
from urllib.parse import parse_qs, urlsplit

from fake_llm import FakeLLM

KINDS = ("upload", "create", "list", "retrieve", "content", "delete")


@dataclass
class FakeBatches(FakeLLM):
    """See the module.

    ``polls`` is how often a batch is looked at until it has ended. ``script`` has for each kind
    of call what happens to the first, second, ... such call: None, "drop before" or "drop after"
    (the connection is lost before or after the call has its effect), "cut" (the answer is), or
    an HTTP status. ``lines`` changes the lines of results: a function of the request and its
    line returns the lines to send. ``watch`` is called with each kind and "before" or "after".
    """

    polls: int = 2
    script: dict = field(default_factory=dict)
    interface: bool = True
    lists: bool = True
    expire_after: int | None = None  # requests; the others expire
    cancel_after: int | None = None
    invalid: list | None = None  # errors of every batch
    queue: int | None = None  # batches at once; others fail
    most_bytes: int = 200_000_000
    page: int = 100
    shuffle: bool = False
    lines: object = staticmethod(lambda request, line: [line])
    watch: object = staticmethod(lambda kind, when: None)

    executed: Counter = field(default_factory=Counter)  # by content
    files: dict = field(default_factory=dict)
    batches: dict = field(default_factory=dict)
    calls: Counter = field(default_factory=Counter)

    async def start(self):
        await super().start()

    # -- HTTP ---------------------------------------------------------------------------------

    async def one(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        if "chunked" in headers.get("transfer-encoding", ""):
            raw = await self.chunks(reader)
        else:
            raw = await reader.readexactly(int(headers.get("content-length", 0)))
        kind, effect = self.route(method, target, headers, raw)
        if self.latency:
            await asyncio.sleep(self.latency)
        return await self.handle(writer, headers, kind, effect)

    async def chunks(self, reader):
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(parts)

    async def handle(self, writer, headers, kind, effect):
        given = headers.get("authorization", "").removeprefix("bearer ")
        if self.key is not None and given != self.key.lower():
            error = {"message": f"Incorrect API key provided: {self.key}", "code": "invalid_key"}
            return await self.send(writer, 401, {"error": error})
        if kind is None:
            return await self.send(writer, 404, "<html>Not found</html>")
        if self.status is not None:
            return await self.send(writer, self.status, {"error": self.error})
        script = self.script.get(kind, ())
        fault = script[self.calls[kind]] if self.calls[kind] < len(script) else None
        self.calls[kind] += 1
        self.watch(kind, "before")
        if fault == "drop before":
            writer.transport.abort()
            return False
        if isinstance(fault, int):
            return await self.send(writer, fault, {"error": {"message": "busy"}})
        status, body = effect()
        self.watch(kind, "after")
        if fault == "drop after":
            writer.transport.abort()
            return False
        await self.send(writer, status, body, cut=fault == "cut")
        return fault != "cut"

    async def send(self, writer, status, body, extra="", cut=False):
        if not cut:
            return await super().send(writer, status, body, extra)
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n".encode())
        writer.write(text[: len(text) // 2])
        await writer.drain()
        writer.close()
        return False

    def route(self, method, target, headers, raw):
        """What kind of call it is, and what it does."""
        address = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        match method, address.path.removeprefix("/v1/").split("/"):
            case _ if not self.interface:
                return None, None
            case "POST", ["files"]:
                return "upload", lambda: self.upload(headers, raw)
            case "POST", ["batches"]:
                return "create", lambda: self.create(json.loads(raw))
            case "GET", ["batches"] if self.lists:
                return "list", lambda: self.list(query)
            case "GET", ["batches", batch]:
                return "retrieve", lambda: self.retrieve(batch)
            case "GET", ["files", file, "content"]:
                return "content", lambda: self.content(file)
            case "DELETE", ["files", file]:
                return "delete", lambda: self.delete(file)
        return None, None

    # -- files and batches ----------------------------------------------------------------------

    def upload(self, headers, raw):
        form = message_from_bytes(
            f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + raw
        )
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in form.get_payload()
        }
        content = parts["file"].get_payload(decode=True)
        assert parts["purpose"].get_payload().strip() == "batch"
        if len(content) > self.most_bytes:
            return 400, {"error": {"message": "File is too large."}}
        file = f"file-{len(self.files)}"
        self.files[file] = content.decode()
        return 200, {"id": file, "object": "file"}

    def create(self, request):
        assert request["endpoint"] == "/v1/chat/completions"
        assert request["completion_window"] == "24h"
        file = request["input_file_id"]
        if file not in self.files:
            return 400, {"error": {"message": f"Cannot find file {file}"}}
        return 200, self.shown(self.batches[self.create_from(file)])

    def create_from(self, file):
        """The id of a batch of the requests in a file."""
        requests = [json.loads(line) for line in self.files[file].splitlines()]
        batch = {
            "id": f"batch_{len(self.batches)}",
            "object": "batch",
            "input_file_id": file,
            "status": "in_progress",
            "request_counts": {"total": len(requests), "completed": 0, "failed": 0},
            "polled": 0,
        }
        under_way = sum(b["status"] == "in_progress" for b in self.batches.values())
        self.batches[batch["id"]] = batch
        if self.queue is not None and under_way >= self.queue:
            error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [error]}}
        elif self.invalid:
            batch |= {"status": "failed", "errors": {"object": "list", "data": self.invalid}}
        else:
            self.execute(batch, requests)
        return batch["id"]

    def execute(self, batch, requests):
        """Work on a batch; what comes of it is shown once it has been polled often enough."""
        most = min(
            n for n in (self.expire_after, self.cancel_after, len(requests)) if n is not None
        )
        answers, errors = [], []
        for number, request in enumerate(requests):
            line = {"id": f"batch_req_{number}", "custom_id": request["custom_id"]}
            if number < most:
                content = json.dumps(request["body"], sort_keys=True)
                self.executed[hashlib.sha256(content.encode()).hexdigest()] += 1
                fault = self.rng.choice(self.kinds) if self.rng.random() < self.faults else None
                body = self.body(request["body"], fault)
                response = {"status_code": 200, "request_id": "req", "body": body}
                for changed in self.lines(request, line | {"response": response, "error": None}):
                    failed = isinstance(changed, dict) and (
                        not changed["response"] or changed["response"]["status_code"] != 200
                    )
                    (errors if failed else answers).append(changed)
            elif self.expire_after is not None:
                error = {"code": "batch_expired", "message": "This request could not be executed"}
                errors.append(line | {"response": None, "error": error})
        if self.shuffle:
            random.Random(0).shuffle(answers)
        batch["results"] = [answers, errors]
        batch["end"] = "completed"
        if self.expire_after is not None:
            batch["end"] = "expired"
        if self.cancel_after is not None:
            batch["end"] = "cancelled"

    def list(self, query):
        newest_first = list(self.batches)[::-1]
        after = query.get("after")
        start = newest_first.index(after) + 1 if after else 0
        limit = min(self.page, int(query.get("limit", 20)))
        shown = newest_first[start : start + limit]
        return 200, {
            "object": "list",
            "data": [self.shown(self.batches[batch]) for batch in shown],
            "has_more": start + limit < len(newest_first),
        }

    def retrieve(self, name):
        if name not in self.batches:
            return 404, {"error": {"message": f"No batch {name}"}}
        batch = self.batches[name]
        if batch["status"] == "in_progress":
            batch["polled"] += 1
            answers, errors = batch["results"]
            counts = batch["request_counts"]
            counts["completed"] = len(answers) * batch["polled"] // max(1, self.polls)
            if batch["polled"] >= self.polls:
                batch["status"] = batch["end"]
                counts |= {"completed": len(answers), "failed": len(errors)}
                for kind, lines in (("output", answers), ("error", errors)):
                    if lines:
                        file = f"file-{len(self.files)}"
                        self.files[file] = "".join(
                            (line if isinstance(line, str) else json.dumps(line)) + "\n"
                            for line in lines
                        )
                        batch[f"{kind}_file_id"] = file
        return 200, self.shown(batch)

    def shown(self, batch):
        return {name: value for name, value in batch.items() if name not in ("results", "end")}

    def content(self, file):
        if self.files.get(file) is None:
            return 404, {"error": {"message": f"No such File object: {file}"}}
        return 200, self.files[file]

    def delete(self, file):
        self.files[file] = None  # ids are counted
        return 200, {"id": file, "deleted": True}
