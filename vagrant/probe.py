"""Asks for a page over a new connection every 20 ms, and says what a client saw: probe.py ADDRESS SECONDS.

While it runs it writes nothing. In the end: how many requests there were, how many failed, and the longest time without
an answer.
"""

import http.client
import sys
import threading
import time

EVERY = 0.02
PATIENCE = 0.9


def ask(address, answers):
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request("GET", "/")
        answers.append((time.monotonic(), connection.getresponse().read().decode().strip()))
    except OSError:
        pass
    finally:
        connection.close()


def main(address, seconds):
    answers = []
    threads = []
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        thread = threading.Thread(target=ask, args=(address, answers))
        thread.start()
        threads.append(thread)
        time.sleep(EVERY)
    for thread in threads:
        thread.join()
    if not answers:
        sys.exit(f"none of {len(threads)} requests was answered")
    answers.sort()
    gap = max((later - earlier for (earlier, _), (later, _) in zip(answers, answers[1:])), default=0)
    print(f"{len(threads)} requests, {len(threads) - len(answers)} failed; "
          f"the longest time without an answer: {gap * 1000:.0f} ms")
    print(f"the last one: {answers[-1][1]}")


main(sys.argv[1], float(sys.argv[2]))
