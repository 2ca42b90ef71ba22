import pytest

from rgnb import notebooks


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """The book's HTML, built from the committed executed notebooks."""
    return notebooks.build_html(output=tmp_path_factory.mktemp("book")).parent
