"""How a layer learns: no clock, no thread, no HTTP."""
