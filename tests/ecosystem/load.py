"""The clients of load.sh: URL PROCESS SECONDS. Only the standard library is used."""

import asyncio
import json
import random
import sys
import time

url, process, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
host, port = url.removeprefix("http://").rsplit(":", 1)


async def request(body, path="/v1/completions"):
    """Sends a request; the whole answer."""
    reader, writer = await asyncio.open_connection(host, int(port))
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
    answer = await reader.read(-1)
    writer.close()
    return answer


def memory():
    """Resident bytes of the server."""
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))


async def streams(clients, tokens):
    """Tokens a second of so many clients, each of which streams so many tokens."""
    async def one(seed):
        body = {"prompt": "ROMEO:", "max_tokens": tokens, "seed": seed, "stream": True}
        answer = await request(body)
        assert answer.rstrip().endswith(b"0") and b"data: [DONE]" in answer, answer[-200:]
    start = time.monotonic()
    await asyncio.gather(*(one(seed) for seed in range(clients)))
    return clients * tokens / (time.monotonic() - start)


async def honest(until, times, texts):
    draw = random.Random()
    while time.monotonic() < until:
        seed = draw.randrange(8)
        body = {"prompt": "JULIET:", "max_tokens": 40, "seed": seed, "stream": draw.random() < 0.5}
        start = time.monotonic()
        answer = await request(body)
        assert b" 200 " in answer[:20], answer[:300]
        times.append(time.monotonic() - start)
        head, rest = answer.split(b"\r\n\r\n", 1)
        if body["stream"]:
            text = "".join(
                json.loads(line[6:])["choices"][0]["text"]
                for line in rest.decode().splitlines() if line.startswith("data: {")
            )
        else:
            text = json.loads(rest)["choices"][0]["text"]
        assert texts.setdefault(seed, text) == text, "another text for the same seed"


async def hostile(until, number):
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            body = json.dumps({"prompt": "A", "max_tokens": 4000, "stream": True, "n": 4, "logprobs": 5}).encode()
            whole = head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
            match number % 6:
                case 0:  # leaves in a stream
                    writer.write(whole)
                    await reader.read(500)
                case 1:  # reads nothing
                    writer.write(whole)
                    await asyncio.sleep(8)
                case 2:  # half a request
                    writer.write(whole[:-5])
                    await asyncio.sleep(8)
                case 3:  # no HTTP
                    writer.write(random.randbytes(3000))
                    await reader.read(-1)
                case 4:  # too much
                    writer.write(head + b"Content-Length: 999999999\r\n\r\n" + b"x" * 100_000)
                    await reader.read(-1)
                case 5:  # a byte now and then
                    for byte in whole[:40]:
                        if writer.transport.is_closing():
                            break
                        writer.write(bytes([byte]))
                        await asyncio.sleep(0.2)
            writer.transport.abort()
        except OSError:
            pass
        await asyncio.sleep(0.2)


async def main():
    await streams(1, 50)  # the model is loaded, its threads are awake
    alone = await streams(1, 2000)
    together = await streams(64, 400)
    print(f"tokens a second: {alone:.0f} of one client, {together:.0f} of 64: {together / alone:.1f} times as many")
    before = memory()
    until = time.monotonic() + seconds
    times, texts = [], {}
    clients = [honest(until, times, texts) if at % 10 else hostile(until, at // 10) for at in range(200)]
    await asyncio.gather(*clients)
    times.sort()
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    after = memory()
    print(f"{len(times)} answers in {seconds:.0f} s, p50 {p50:.2f} s, p99 {p99:.2f} s")
    print(f"memory: {before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after")
    assert after < before + (256 << 20), "memory grew"
    assert len(times) > 0


asyncio.run(main())
