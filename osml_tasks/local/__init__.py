"""The local stack: what a job needs from AWS and from a broker, as processes on this machine.

Nothing outside this package imports it, except the command line.
"""
