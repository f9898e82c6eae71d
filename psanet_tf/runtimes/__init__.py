"""What an exported model is, and what runs it: metadata, signatures, and a module per runtime."""
