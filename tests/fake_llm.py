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
TURN = re.compile(r"^(\d+): ([{\"].*[}\"])$", re.M)
NUMBERS = re.compile(r"turns (?:(\d+) (to|down to) (\d+)|(\d[\d, ]*?)),? in this order")
STRETCH_FAULTS = ("missing", "doubled", "extra", "shuffled", "cut off")
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
    prefix_tokens: int = 0  # of the smallest beginning that its cache of prompts holds
    seed: int = 0

    asked: Counter = field(default_factory=Counter)  # by content, when a request is read
    sent: Counter = field(default_factory=Counter)  # by content, when a full answer is sent
    requests: list = field(default_factory=list)
    faulted: Counter = field(default_factory=Counter)
    prefixes: set = field(default_factory=set)
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
        if NUMBERS.search(request["messages"][-1]["content"]):
            return self.stretch_body(request, fault)
        code, codes, text = self.answer(request)
        filtered = fault == "content filter" or self.refused in text
        several = "semicolon" in request["messages"][-1]["content"]
        if several:
            content = request["messages"][-1]["content"]
            code = self.codes_for(text, dict(LABEL.findall(content)), several)
        if fault == "off-list":
            code = "I cannot say"
        n_choices = 1 if self.one_sample else request.get("n", 1)
        as_json = {"labels" if several else "label": self.value(code, several)}
        message = json.dumps(as_json) if "response_format" in request else code
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "" if filtered else message},
            "finish_reason": "content_filter" if filtered else "stop",
        }
        if request.get("logprobs") and self.logprobs and fault != "no logprobs" and not filtered:
            words = code.rstrip(";").split() if several else [code]
            tokens = [*words, ";"] if several else words
            content = [self.place(token, codes) for token in tokens]
            top = {"token": "I", "logprob": -0.01}
            off = [{**top, "top_logprobs": [top]}]
            choice["logprobs"] = {"content": off if fault == "off-list" else content}
        return self.billed(request, [choice] * n_choices, message)

    def stretch_body(self, request, fault):
        """Lines, or an object, of the turns that are asked about."""
        content = request["messages"][-1]["content"]
        labels = dict(LABEL.findall(content))
        turns = {int(number): text_of(json.loads(turn)) for number, turn in TURN.findall(content)}
        numbers = numbers_in(content)
        several = "semicolon" in content
        given = [(number, self.codes_for(turns[number], labels, several)) for number in numbers]
        filtered = fault == "content filter" or any(self.refused in t for t in turns.values())
        if fault == "off-list":
            given = [(number, "I cannot say") for number, _ in given]
        given = self.damaged(given, fault, list(labels))
        if "response_format" in request:
            as_json = ", ".join(f'"{n}": {json.dumps(self.value(c, several))}' for n, c in given)
            message, tokens = f"{{{as_json}}}", None
        else:
            message = "\n".join(f"{number}: {code}" for number, code in given)
            tokens = self.line_tokens(given, list(labels))
        if fault == "cut off":
            message, tokens = message[: 2 * len(message) // 3], None
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "" if filtered else message},
            "finish_reason": "content_filter" if filtered else "stop",
        }
        if request.get("logprobs") and self.logprobs and tokens and fault != "no logprobs":
            choice["logprobs"] = {"content": [] if filtered else tokens}
        return self.billed(request, [choice] * request.get("n", 1), message)

    def codes_for(self, text, labels, several):
        right = [code for code, label in labels.items() if label in text]
        if several:
            return (" ".join(right) or "none") + ";"
        return (right or list(labels))[0]

    def value(self, codes, several):
        codes = codes.rstrip(";")
        return [code for code in codes.split() if code != "none"] if several else codes

    def damaged(self, given, fault, codes):
        """Some lines lost, twice there, of turns that do not exist, or in another order."""
        if fault == "missing":
            return [line for line in given if self.rng.random() > 0.3]
        if fault == "doubled":
            wrong = [(number, self.rng.choice(codes)) for number, _ in given]
            return [one for pair in zip(given, wrong, strict=True) for one in pair][
                : len(given) + 1
            ]
        if fault == "extra":
            return [(0, codes[0]), *given, (len(given) + 90, codes[-1])]
        if fault == "shuffled":
            return self.rng.sample(given, len(given))
        return given

    def line_tokens(self, given, codes):
        """Tokens with log-probabilities: of a code .9, in the place where it stands."""
        tokens = []
        for number, words in given:
            tokens += [("\n" if tokens else "") + str(number), ":"]
            tokens += [f" {word}" for word in words.rstrip(";").split()]
            tokens += [";"] * words.endswith(";")
        return [self.place(token, codes) for token in tokens]

    def place(self, token, codes):
        """A token of probability .9; the codes share the rest."""
        rest = [code for code in codes if code != token.strip()]
        top = [{"token": token, "logprob": math.log(0.9)}]
        top += [{"token": f" {o}", "logprob": math.log(0.1 / len(rest))} for o in rest]
        return {**top[0], "top_logprobs": top}

    def billed(self, request, choices, message):
        tokens_in = sum(4 + self.tokens(m["content"]) for m in request["messages"])
        tokens_out = len(choices) * min(self.tokens(message), request.get("max_tokens", 99))
        usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
        if self.prefix_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens(request)}
        return {"object": "chat.completion", "choices": choices, "usage": usage}

    def cached_tokens(self, request):
        """Of the longest beginning that an earlier request had, in steps of that size."""
        text = "".join(f"{m['role']}{m['content']}" for m in request["messages"])
        step, known = self.prefix_tokens * self.token_bytes, 0
        for end in range(step, len(text) + 1, step):
            beginning = hash(text[:end])
            known = end if beginning in self.prefixes else known
            self.prefixes.add(beginning)
        return known // self.token_bytes

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


def text_of(turn):
    return turn if isinstance(turn, str) else next(reversed(turn.values()))


def numbers_in(content):
    """The turns that a prompt asks about, in the order in which it asks."""
    first, how, last, listed = NUMBERS.search(content).groups()
    if listed:
        return [int(number) for number in listed.split(", ")]
    step = 1 if how == "to" else -1
    return list(range(int(first), int(last) + step, step))


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
