"""A stand-in for an endpoint of a language model, on loopback, that errs as real ones do.

It reads the codes from the prompt and answers with that of the label whose name the utterance
names (else the first), so that a test knows what is right. It counts what it was asked and what
it sent, and bills tokens by a tokenizer of its own.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import random
import re
import threading
from collections import Counter
from dataclasses import dataclass, field

FAULTS = (
    "429",
    "500",
    "hang",
    "drop",
    "truncated",
    "no logprobs",
    "off-list",
    "content filter",
)
UTTERANCE = re.compile(
    r"^(?:Utterance to label|Target utterance|Last utterance|A speaker says): (\{.*\})$", re.M
)
LABEL = re.compile(r"^(\w\d?): ([^{\n]+?)(?: - .*)?$", re.M)


@dataclass
class FakeLLM:
    """See the module.

    ``faults`` is the share of requests that get one of ``kinds``; ``token_bytes`` the length of
    its tokens; a word of ``refused`` in an utterance gets a content filter every time.
    """

    latency: float = 0.0
    faults: float = 0.0
    kinds: tuple = FAULTS
    key: str | None = None
    logprobs: bool = True
    one_sample: bool = False  # however many are wanted
    status: int | None = None  # of all answers
    error: dict = field(default_factory=dict)
    refused: str = "\0"
    token_bytes: int = 4
    hang: float = 30.0
    seed: int = 0

    asked: Counter = field(default_factory=Counter)  # by content, when a request is read
    sent: Counter = field(default_factory=Counter)  # by content, when a full answer is sent
    requests: list = field(default_factory=list)
    faulted: Counter = field(default_factory=Counter)
    tokens_in: int = 0
    tokens_out: int = 0
    most_at_once: int = 0

    # -- what it says -----------------------------------------------------------------------

    def tokens(self, text):
        return math.ceil(len(text.encode()) / self.token_bytes)

    def answer(self, request):
        content = request["messages"][-1]["content"]
        match = UTTERANCE.search(content)
        text = json.loads(match.group(1))["text"] if match else content
        labels = dict(LABEL.findall(content))
        right = [code for code, label in labels.items() if label in text]
        return (right or list(labels))[0], list(labels), text

    def body(self, request, fault):
        code, codes, text = self.answer(request)
        filtered = fault == "content filter" or self.refused in text
        if fault == "off-list":
            code = "I cannot say"
        n_choices = 1 if self.one_sample else request.get("n", 1)
        message = json.dumps({"label": code}) if "response_format" in request else code
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "" if filtered else message},
            "finish_reason": "content_filter" if filtered else "stop",
        }
        if request.get("logprobs") and self.logprobs and fault != "no logprobs" and not filtered:
            rest = [other for other in codes if other != code]
            top = [{"token": code, "logprob": math.log(0.9)}]
            top += [{"token": f" {o}", "logprob": math.log(0.1 / len(rest))} for o in rest]
            top = [{"token": "I", "logprob": -0.01}] if fault == "off-list" else top
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        tokens_in = sum(4 + self.tokens(m["content"]) for m in request["messages"])
        tokens_out = n_choices * min(self.tokens(message), request.get("max_tokens", 99))
        usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
        return {"object": "chat.completion", "choices": [choice] * n_choices, "usage": usage}

    # -- HTTP ---------------------------------------------------------------------------------

    async def serve(self, reader, writer):
        try:
            while await self.one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def one(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        request = json.loads(raw)
        self.requests.append(request)
        content = hashlib.sha256(raw).hexdigest()
        self.asked[content] += 1
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            if reader.at_eof():  # nobody is there any more to take the answer
                return False
            return await self.reply(writer, headers, request, content)
        finally:
            self.under_way -= 1

    async def reply(self, writer, headers, request, content):
        fault = self.rng.choice(self.kinds) if self.rng.random() < self.faults else None
        self.faulted[fault] += 1
        given = headers.get("authorization", "").removeprefix("bearer ")
        if self.key is not None and given != self.key.lower():
            error = {"message": f"Incorrect API key provided: {self.key}", "code": "invalid_key"}
            return await self.send(writer, 401, {"error": error})
        if self.status is not None:
            return await self.send(writer, self.status, {"error": self.error})
        if fault == "drop":
            writer.transport.abort()
            return False
        if fault == "hang":
            await asyncio.sleep(self.hang)
            return False
        if fault in ("429", "500"):
            error = {"error": {"message": "busy"}}
            return await self.send(writer, int(fault), error, "Retry-After: 0.02\r\n")
        body = self.body(request, fault)
        self.tokens_in += body["usage"]["prompt_tokens"]
        self.tokens_out += body["usage"]["completion_tokens"]
        await self.send(writer, 200, body, cut=fault == "truncated")
        if fault is None:
            self.sent[content] += 1
        return True

    async def send(self, writer, status, body, extra="", cut=False):
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        text = text[: len(text) // 2] if cut else text
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{extra}"
        writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        await writer.drain()
        return True

    # -- running ------------------------------------------------------------------------------

    async def start(self):
        self.rng = random.Random(self.seed)
        self.under_way = 0
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.start())
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.server.close()
        self.loop.close()


async def main(options):
    server = FakeLLM(latency=options.latency, token_bytes=options.token_bytes)
    await server.start()
    print(server.base_url, flush=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.server.serve_forever(), options.seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.05, help="seconds to each answer")
    parser.add_argument("--token-bytes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=600, help="until it ends by itself")
    asyncio.run(main(parser.parse_args()))
