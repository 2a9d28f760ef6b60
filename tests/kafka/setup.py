#!/usr/bin/env python3
"""Puts a real Apache Kafka on this machine: the jars that jars.txt pins, and prints their folder.

They are kept in ${FLOWCAST_CACHE:-~/.cache/flowcast}/kafka-VERSION, outside the source tree. Nothing is
done the second time. They come from Maven Central, or from the mirror of it that Maven's own settings
(~/.m2/settings.xml) or the environment (MAVEN_REPOSITORY, a URL) name; proxies and certificates are
those of the environment. Every file must have the SHA-256 that jars.txt says.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CENTRAL = "https://repo.maven.apache.org/maven2"
HERE = Path(__file__).resolve().parent
OLDEST_JAVA = 17


def pinned():
    lines = (HERE / "jars.txt").read_text().splitlines()
    return [tuple(line.split()) for line in lines if line and not line.startswith("#")]


def version():
    return re.search(r"Apache Kafka ([\d.]+\d)", (HERE / "jars.txt").read_text())[1]


def cache():
    base = os.environ.get("FLOWCAST_CACHE") or Path.home() / ".cache" / "flowcast"
    return Path(base).expanduser() / f"kafka-{version()}"


def repository():
    """The URL to fetch from: the environment's, Maven's mirror of central, or central itself."""
    if named := os.environ.get("MAVEN_REPOSITORY"):
        return named.rstrip("/")
    settings = Path.home() / ".m2" / "settings.xml"
    if settings.is_file():
        root = xml.etree.ElementTree.parse(settings).getroot()
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        for mirror in root.iter("mirror"):
            of = [name.strip() for name in (mirror.findtext("mirrorOf") or "").split(",")]
            url = (mirror.findtext("url") or "").strip()
            if "!central" not in of and {"central", "*", "external:*"} & set(of) and url and "${" not in url:
                return url.rstrip("/")
    return CENTRAL


def sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(digest, path, folder, source):
    """Downloads one jar, three tries; it appears under its name only when it is whole."""
    target = folder / path.rpartition("/")[2]
    if target.is_file() and sha256(target) == digest:
        return
    for attempt in range(3):
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            try:
                with urllib.request.urlopen(f"{source}/{path}", timeout=60) as answer:
                    shutil.copyfileobj(answer, file)
                file.close()
                if (actual := sha256(Path(file.name))) != digest:
                    raise OSError(f"expected SHA-256 {digest}, got {actual}")
                os.replace(file.name, target)
                return
            except OSError as error:
                Path(file.name).unlink(missing_ok=True)
                # A "no" is final: only what may pass is tried again.
                final = isinstance(error, urllib.error.HTTPError) and error.code < 500
                if final or attempt == 2:
                    sys.exit(f"tests/kafka/setup.py: {path} cannot be fetched: {error}")
                time.sleep(1 + attempt)


def java():
    """The java to run Kafka with; ends with what to do if there is none that will do."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=os.path.join(home, "bin")) if home else None
    found = found or shutil.which("java")
    wanted = f"the Kafka tests need Java {OLDEST_JAVA} or newer (Debian: apt-get install default-jre-headless)"
    if not found:
        sys.exit(f"tests/kafka/setup.py: {wanted}; found none in JAVA_HOME or PATH")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=True).stderr
    number = re.search(r'version "(\d+)', said)
    if not number or int(number[1]) < OLDEST_JAVA:
        sys.exit(f"tests/kafka/setup.py: {wanted}; found {said.splitlines()[0]}")
    return found


def install():
    folder = cache()
    jars = pinned()
    # A file that names what was checked, so that the second time costs no hashing.
    done = folder / "complete"
    listed = "\n".join(digest for digest, _ in jars)
    if not (done.is_file() and done.read_text() == listed):
        folder.mkdir(parents=True, exist_ok=True)
        source = repository()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda jar: fetch(*jar, folder, source), jars))
        done.write_text(listed)
    return folder


if __name__ == "__main__":
    java()
    print(install())
