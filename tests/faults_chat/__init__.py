"""The fault suite of chat runs: web processes, executors, readers and a scripted upstream, many faults at once.

`make faults-chat RUNS=n SEED=s` runs it. plan.py draws a run from its seed, visitors.py are the students and their
devices, injector.py carries the faults out, reading.py and checker.py judge what was seen and what is stored. Servers,
processes and hooks are those of tests/faults.
"""
