"""One server and one dataset for the whole run; a proxy in front of it for each test that asks for one."""

import pytest

from support.orderflow import Dataset
from support.proxy import TcpProxy
from support.server import Server


def pytest_configure(config):
    # Our handlers run in threads of the SDK: an exception there fails the test.
    config.addinivalue_line("filterwarnings", "error::pytest.PytestUnhandledThreadExceptionWarning")
    # But the SDK's own thread may try to send its ack just when a test closes the connection. (The last line wins.)
    ignored = "ignore:Exception in thread .*sequence_id_ack_periodically:pytest.PytestUnhandledThreadExceptionWarning"
    config.addinivalue_line("filterwarnings", ignored)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    # SPY is short, so that its replay starts over within a test.
    return Dataset(tmp_path_factory.mktemp("data"), {"SPX": 300, "ES_SPX": 290, "SPY": 7})


@pytest.fixture(scope="session")
def server(dataset, tmp_path_factory):
    with Server(dataset, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def proxy(server):
    with TcpProxy(server.port) as proxy:
        yield proxy
