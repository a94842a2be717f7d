"""Whether an address answers; what the health checks of the images ask: `python health.py URL`."""

import sys
from urllib.request import ProxyHandler, build_opener

try:
    build_opener(ProxyHandler({})).open(sys.argv[1], timeout=4).close()
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
