"""What DHCP clients call: five small stubs (`stubs/`), the program behind them, and what puts them in place.

The rule: a client is neither delayed nor failed by us, whatever happens here; and every value that it hands over came
from a DHCP server, so it is data of a stranger. On the way from a stub to the broker nothing but the standard library
and PyYAML is imported, because a small box starts the program on every renewal.
"""
