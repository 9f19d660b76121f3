"""What is kept: model files now; credentials, ledger, cache and limits behind the same door later."""
