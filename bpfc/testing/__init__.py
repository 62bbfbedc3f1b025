"""What tests and campaigns draw from: instructions and programs that are valid by construction."""
