"""What the bytes mean: names, codes, the compiled table, the verdict, the broker's frames.

Pure: no socket, clock, file, process or log in here; time, randomness and bytes are arguments.
This is the only part of dnsd that the controller may import.
"""
