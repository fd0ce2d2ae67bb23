"""Why the classifier says what it says: class activation maps and nearest training cases."""
