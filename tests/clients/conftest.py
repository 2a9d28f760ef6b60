"""Two servers for the whole run: one with odd orderflow records, one with all categories of a day.

And a proxy in front of either for each test that asks for one.
"""

import pytest

from support.market import Market
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


@pytest.fixture(scope="session")
def market(tmp_path_factory):
    return Market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="session")
def market_server(market, tmp_path_factory):
    with Server(market, tmp_path_factory.mktemp("market-server"), interval="100ms") as server:
        yield server


@pytest.fixture
def market_proxy(market_server):
    with TcpProxy(market_server.port) as proxy:
        yield proxy
