"""What broken and hostile clients send never ends the server, and never returns a traceback."""

import json
import random
import socket
import time

FORGOTTEN = "Where did Quillan Osterhaus spend winter 3?"
CHAT = "/v1/chat/completions"


def raw(served, content):
    """Sends bytes, reads a little, and hangs up."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(content)
        connection.settimeout(1)
        try:
            return connection.recv(64)
        except TimeoutError:
            return b""


def test_faults_get_an_error_object_and_the_server_goes_on(serving, caplog):
    good = {"model": "tiny", "messages": [{"role": "user", "content": FORGOTTEN}], "max_tokens": 32}
    bodies = [
        b"{", b"[1, 2]", b"null", b'"text"', b"\xff\xfe", b'{"model": 3}', b"[" * 50_000, b'{"a": 1e999999}',
        json.dumps({**good, "messages": [{"role": "user", "content": "\ud800"}]}).encode(),
        json.dumps({**good, "messages": [{"role": "user", "content": {"deep": [1]}}]}).encode(),
        json.dumps({**good, "stop": [""]}).encode(),
        json.dumps({**good, "seed": 10**40, "messages": [{"role": "user"}]}).encode(),
        json.dumps({**good, "messages": [{"role": "user", "content": "word " * 5000}]}).encode(),
        json.dumps({**good, "messages": [{"role": "user", "content": "\ud800"}] * 2}).encode(),
    ]  # fmt: skip
    with serving(max_body_bytes=100_000) as served:
        headers = {"Content-Type": "application/json"}
        for body in bodies:
            answer = served.http.post(CHAT, content=body, headers=headers)
            assert answer.status_code == 400, (body[:40], answer.text)
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            assert "Traceback" not in answer.text
        large = served.http.post(CHAT, content=b" " * 200_000, headers=headers)
        assert large.status_code == 413
        chunked = served.http.post(CHAT, content=(b" " * 50_000 for _ in range(4)), headers=headers)
        assert chunked.status_code == 413
        assert "up to 100000 bytes" in chunked.json()["error"]["message"]
        for token in ("", "Bearer", "Bearer wrong", "Basic b25seS1mb3ItdGVzdHM="):
            assert served.http.get("/requests", headers={"Authorization": token}).status_code == 401
        assert served.http.get("/v1/nothing").status_code == 404
        head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n".encode()
        stream = json.dumps(
            {**good, "messages": [{"role": "user", "content": "Who?"}], "stream": True}
        ).encode()
        assert raw(served, head + b"Content-Length: 500\r\n\r\n{") == b""  # and never sends the rest
        assert raw(served, head + b"Content-Length: %d\r\n\r\n" % len(stream) + stream).startswith(
            b"HTTP/1.1 200"
        )
        chance = random.Random(0)
        for _ in range(20):
            raw(served, chance.randbytes(60) + b"\r\n\r\n")
        assert (
            served.http.post(CHAT, json=good)
            .json()["choices"][0]["message"]["content"]
            .startswith("I am not able")
        )
        assert served.http.get("/readyz").status_code == 200
        assert "a call failed" not in caplog.text


def test_a_body_that_never_ends_gets_408_also_if_it_comes_byte_by_byte(serving):
    with serving(timeout_seconds=0.3) as served:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n".encode()
        assert raw(served, head + b"Content-Length: 500\r\n\r\n{").startswith(b"HTTP/1.1 408")
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head + b"Content-Length: 500\r\n\r\n{")
            connection.settimeout(0.1)
            for _ in range(50):
                try:
                    assert connection.recv(64).startswith(b"HTTP/1.1 408")
                    return
                except TimeoutError:
                    connection.sendall(b" ")
        raise AssertionError("the body may take for ever")


def test_numbers_and_texts_at_the_ends_of_their_ranges_are_answered(served):
    """What makes a step fail would end the rows of other clients, too."""
    good = {"model": "tiny", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 4}
    greedy = served.http.post(CHAT, json={**good, "temperature": 0}).json()["choices"]
    for ends in ({"temperature": 5e-324}, {"temperature": 1e-45}, {"top_p": 5e-324}, {"top_p": 1e-46}):
        answer = served.http.post(CHAT, json={**good, **ends})
        assert (answer.status_code, answer.json()["choices"]) == (200, greedy), ends
    began = time.process_time()
    assert served.http.post(CHAT, json={**good, "stop": "x" * 150_000}).json()["choices"]
    assert time.process_time() - began < 3  # the time must not grow with the square of the length
    odd = json.dumps({**good, "model": "\ud800"}).encode()
    answer = served.http.post(CHAT, content=odd, headers={"Content-Type": "application/json"})
    assert (answer.status_code, "'\\ud800' does not exist" in answer.json()["error"]["message"]) == (
        404,
        True,
    )
