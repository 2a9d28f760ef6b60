#!/usr/bin/env python3
"""One Apache Kafka (KRaft, broker and controller in one JVM) for as long as standard input is open.

Prints `ready PLAIN SASL` (two addresses: without and with SASL/PLAIN, user flowcast, password secret)
when it serves; with the argument `tls`, `ready PLAIN SASL TLS CA`: TLS with SASL/SCRAM-SHA-256 as well, and
the file of the certificate that vouches for it. Commands, one a line: `stop` (in order), `kill` (SIGKILL), `start` (again: the same ports,
the same data); answered with `stopped` or `ready …`. At the end of the input the broker is killed and its
data removed, so it never outlives the tests that asked for it, however they end.
"""

import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import setup

PATIENCE = 120
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners={served},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={served}
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \\
  required user_flowcast="secret";
log.dirs={data}
num.partitions=1
auto.create.topics.enable=false
message.max.bytes=8388608
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
controlled.shutdown.enable=true
"""
TLS_PROPERTIES = """
listener.name.tls.ssl.keystore.type=PKCS12
listener.name.tls.ssl.keystore.location={folder}/broker.p12
listener.name.tls.ssl.keystore.password=changeit
listener.name.tls.sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.tls.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


PR_SET_PDEATHSIG = 1


def end_with_parent():
    """The broker must not outlive this script, even if that is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Broker:
    def __init__(self, folder, with_tls):
        self.folder = folder
        self.java = setup.java()
        jars = setup.install()
        options = ["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        log = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dlog4j2.level=ERROR"]
        self.run = [self.java, *options, *log, "-cp", f"{jars}/*"]
        self.properties = folder / "server.properties"
        self.log = folder / "kafka.log"
        self.process = None
        # All are held at once, so that they differ.
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
        self.plain, sasl, tls, controller = (socket.getsockname()[1] for socket in held)
        for taken in held:
            taken.close()
        listeners = {"PLAIN": self.plain, "SASL": sasl} | ({"TLS": tls} if with_tls else {})
        served = ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items())
        text = PROPERTIES.format(data=folder / "data", controller=controller, served=served)
        self.addresses = [f"127.0.0.1:{port}" for port in listeners.values()]
        if with_tls:
            text += TLS_PROPERTIES.format(folder=folder)
            self.addresses.append(str(self.certify()))
        self.properties.write_text(text)
        tool = [*self.run, "kafka.tools.StorageTool", "format", "-t", "flowcastflowcastflowca", "-c", self.properties]
        scram = ["--add-scram", "SCRAM-SHA-256=[name=flowcast,password=secret]"]
        subprocess.run([*tool, *scram], check=True, stdout=subprocess.DEVNULL)

    def certify(self):
        """Makes the broker's key and certificate; returns the file of the latter."""
        keytool = Path(self.java).resolve().with_name("keytool")
        store = ["-alias", "broker", "-keystore", self.folder / "broker.p12", "-storepass", "changeit"]
        pair = ["-genkeypair", "-keyalg", "RSA", "-storetype", "PKCS12", "-validity", "2", "-dname", "CN=127.0.0.1"]
        subprocess.run([keytool, *pair, "-ext", "san=ip:127.0.0.1", *store], check=True, stderr=subprocess.DEVNULL)
        certificate = self.folder / "ca.pem"
        export = ["-exportcert", "-rfc", "-file", certificate]
        subprocess.run([keytool, *export, *store], check=True, stderr=subprocess.DEVNULL)
        return certificate

    def start(self):
        with self.log.open("ab") as log:
            main = [*self.run, "kafka.Kafka", self.properties]
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.process = subprocess.Popen(main, **streams, preexec_fn=end_with_parent)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.plain), timeout=1).close()
                return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"tests/kafka/broker.py: Kafka does not serve:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def end(self, how):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def main():
    # The terminal's Ctrl-C reaches the whole group: the end of the input tells when to end, not it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="flowcast-kafka-"))
    broker = None
    try:
        broker = Broker(folder, "tls" in sys.argv[1:])
        commands = {"stop": signal.SIGTERM, "kill": signal.SIGKILL}
        command = "start"
        while command:
            if command == "start":
                broker.start()
                answer = " ".join(["ready", *broker.addresses])
            else:
                broker.end(commands[command])
                answer = "stopped"
            print(answer, flush=True)
            command = sys.stdin.readline().strip()
    finally:
        if broker:
            broker.end(signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
