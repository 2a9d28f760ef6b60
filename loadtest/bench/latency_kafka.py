"""Kafka for the latency benchmark: a broker of its own, a producer, and a bare consumer to compare with.

The broker is the one of the tests (tests/kafka/broker.py, which needs Java); producer and bare consumer are
`confluent-kafka` from PyPI, which is librdkafka, as in flowcast.
"""

import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import time

from servers import CLIENT_CORE, ROOT, pinned

with contextlib.suppress(ImportError):
    import confluent_kafka
    import confluent_kafka.admin

START_S = 60


def missing():
    """What must be installed first; empty if everything is there."""
    return "" if "confluent_kafka" in sys.modules else "pip install -r loadtest/bench/requirements.txt"


@contextlib.contextmanager
def broker():
    """The address of a broker on the generator's core, for a block."""
    command = pinned(CLIENT_CORE, [sys.executable, ROOT / "tests/kafka/broker.py"])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            words = process.stdout.readline().split()
            if words[:1] != ["ready"]:
                raise RuntimeError("Kafka did not start; see what is printed above")
            yield words[1]
        finally:
            # It ends with its input.
            process.stdin.close()


class Topic:
    """A new topic and its producer."""

    _count = 0

    def __init__(self, address):
        Topic._count += 1
        self.address, self.name = address, f"latency-{os.getpid()}-{Topic._count}"
        admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": address})
        for made in admin.create_topics([confluent_kafka.admin.NewTopic(self.name, 1, 1)]).values():
            made.result(START_S)
        self._producer = confluent_kafka.Producer({"bootstrap.servers": address, "linger.ms": 0, "acks": 1})

    def prepare(self, text):
        """Nothing: librdkafka sends from a thread of its own."""
        self._text = text

    def send(self):
        """Hands the message to the producer, which sends it at once."""
        self._producer.produce(self.name, f'{{"text":"{self._text}"}}')

    def confirm(self):
        """The broker must have taken it."""
        if self._producer.flush(10):
            raise RuntimeError("Kafka did not take a message")

    def until(self, is_heard):
        """Sends a message every second until somebody has heard the last one: the consumer has come."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            self.prepare(text := f"warm-up {time.monotonic_ns()}")
            self.send()
            self.confirm()
            if is_heard(text):
                return
        raise RuntimeError("nothing came through Kafka")


def forward(core, address, name, port):
    """Sends to a TCP port what the topic has, as fast as one can."""
    os.sched_setaffinity(0, core)
    consumer = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": name, "enable.auto.commit": False})
    consumer.assign([confluent_kafka.TopicPartition(name, 0, 0)])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            message = consumer.poll(1)
            if message is not None and not message.error():
                connection.sendall(message.value() + b"\n")


@contextlib.contextmanager
def bare_consumer(topic, core):
    """A connection on which a process sends what it consumes, a line a message; for a block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = (core, topic.address, topic.name, listener.getsockname()[1])
        process = multiprocessing.get_context("spawn").Process(target=forward, args=arguments, daemon=True)
        process.start()
        try:
            listener.settimeout(START_S)
            connection, _ = listener.accept()
            with connection:
                yield connection
        finally:
            process.kill()
            process.join()
