"""How names get resolved. Pure: generators that yield `Ask` and are sent `Reply`."""
