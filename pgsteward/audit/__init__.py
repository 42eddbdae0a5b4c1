"""What an index audit looks at, one question to a module; `pgsteward.index_audit` asks them all."""
