"""From git to frames: read rules, check them, compile them, publish them, show what is live."""
