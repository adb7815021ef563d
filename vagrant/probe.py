"""Asks for a page over a new connection every 20 ms, and says what a client saw: probe.py ADDRESS SECONDS.

While it runs it writes nothing. In the end: how many requests there were, how many failed, and the longest time without
an answered one.
"""

import http.client
import sys
import threading
import time

EVERY = 0.02
PATIENCE = 0.9


def ask(address, begin, answers):
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request("GET", "/")
        answers[begin] = connection.getresponse().read().decode().strip()
    except OSError:
        answers[begin] = None
    finally:
        connection.close()


def main(address, seconds):
    answers = {}
    threads = []
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        thread = threading.Thread(target=ask, args=(address, time.monotonic(), answers))
        thread.start()
        threads.append(thread)
        time.sleep(EVERY)
    for thread in threads:
        thread.join()
    answered = sorted(at for at, answer in answers.items() if answer)
    if not answered:
        sys.exit(f"none of {len(answers)} requests was answered")
    gap = max((later - earlier for earlier, later in zip(answered, answered[1:])), default=0)
    print(f"{len(answers)} requests, {len(answers) - len(answered)} failed; "
          f"the longest time between two that were answered: {gap * 1000:.0f} ms")
    print(f"the last one: {answers[answered[-1]]}")


main(sys.argv[1], float(sys.argv[2]))
