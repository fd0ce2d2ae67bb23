"""How fast, measured side by side in one run, because absolute figures of a shared machine mean little."""
