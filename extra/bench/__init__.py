# bench: how fast picograd is beside other libraries on this machine: `python -m extra.bench cpu`. A table of workloads
# (workloads.py) is run by a table of peers (peers.py), each in a process of its own (worker.py), in turns; what the
# machine could do at best is measured without any of them (runtime/limits.py).
