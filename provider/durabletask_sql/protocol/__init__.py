"""The wire protocol: our own .proto, its generated modules, constructors of history events, framing of event lists.

Pure: no IO, no clock. Times come in as microseconds.
"""
